"""diorama and diffusers on the same work, in one process and in turn: from encoded sentences to finished latents.

    python -m venv .peers && .peers/bin/pip install -c constraints.txt . -r benchmarks/peers/requirements.txt
    .peers/bin/python benchmarks/peers/diffusers_side_by_side.py --rounds 9

Ours is the `flow` network with classifier-free guidance, as `Flow.sample` runs it. The peer is `StableDiffusionPipeline` around
a `UNet2DConditionModel` whose parameters and FLOPs per call are within five percent of ours, with the same latents, the same
number of text tokens and guidance. Neither side's text encoder or decoder is timed. Weights are untrained: they do not change
the cost. Two rows: the peer as it comes (float32, DPM-Solver++, its 50 steps), and given our precision, solver and steps.
How many of its steps give the picture that ours gives in 12 is a question of quality, which this script does not answer.
"""

from __future__ import annotations

import bisect
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import tyro
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel

sys.path.insert(0, str(Path(__file__).parent.parent))  # timing.py and models.py
import models
from timing import Spread, alternate, flops, machine, ratio, report

from diorama.guidance.classifier_free import classifier_free
from diorama.networks.precision import Ground
from diorama.processes.levels import flow as flow_levels
from diorama.systems.images.flow import Flow
from diorama.types import Condition, Noise

TOLERANCE = 0.05  # how far the peer's parameters and FLOPs may be from ours
PEER_STEPS = 50  # StableDiffusionPipeline's own default


@dataclass(frozen=True)
class Arguments:
    """Time ours and the peer in turn, and report theirs / ours."""

    rounds: int = 9
    batch: int = 1
    steps: int = 12  # ours, the default model's; Euler costs what its DPM-Solver++(2M) does, one call a step
    guidance: float = 4.0
    preset: str = "default"
    device: str = "auto"
    dtype: str = "auto"
    json: Path | None = None


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# --- the two sides --------------------------------------------------------------------------------


def our_work(system: Flow, condition: Condition) -> int:
    """FLOPs of one call of the network for one sentence."""
    side = system.size // system.codec.config.stride
    x = torch.randn(1, system.codec.config.latent, side, side)
    return flops(lambda: system.network(x, torch.ones(1), condition.rows([0])))


def ours(system: Flow, condition: Condition, arguments: Arguments, chosen: Ground) -> Callable[[], Any]:
    condition, process = condition.to(chosen.device), system.process
    side = system.size // system.codec.config.stride
    levels = flow_levels(arguments.steps, shift=1.5)

    def sample() -> torch.Tensor:
        with torch.inference_mode(), chosen.autocast():
            noise = Noise(range(arguments.batch), chosen.device)
            start = process.prior((system.codec.config.latent, side, side), noise)
            guided = classifier_free(system.denoiser, arguments.guidance)
            return process.sample(guided, start, condition, levels=levels, noise=noise)

    return sample


def peer_network(system: Flow, width: int, embedding: int) -> UNet2DConditionModel:
    """One level, blocks and heads as ours has them, cross attention in every block."""
    config = system.network.config
    return UNet2DConditionModel(
        sample_size=system.size // system.codec.config.stride,
        in_channels=config.channels,
        out_channels=config.channels,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        block_out_channels=(width,),
        layers_per_block=config.depth,
        time_embedding_dim=embedding,
        cross_attention_dim=config.text_width,
        attention_head_dim=config.heads,  # the number of heads, whatever it is called
        norm_num_groups=8,
    ).eval()


def matched(system: Flow, tokens: int) -> UNet2DConditionModel:
    """The peer's network nearest to ours in parameters and FLOPs at once. Raises SystemExit where none is near enough."""
    config, side = system.network.config, system.size // system.codec.config.stride
    text, x = torch.randn(1, tokens, config.text_width), torch.randn(1, config.channels, side, side)
    wanted, work = parameters(system.network), flops(lambda: system.network(x, torch.ones(1), _condition_of(text)))
    widths = range(64, 1025, 8)
    with torch.device("meta"):  # no weights, only shapes
        at = bisect.bisect_left(widths, wanted, key=lambda width: parameters(peer_network(system, width, 4 * width)))
        found = []
        for width, embedding in itertools.product(widths[max(0, at - 1) : at + 2], (256, 384, 512, 768, 1024)):
            network = peer_network(system, width, embedding)
            off = abs(parameters(network) / wanted - 1), abs(_peer_work(network, x.to("meta"), text.to("meta")) / work - 1)
            found.append((max(off), width, embedding))
    off, width, embedding = min(found)
    if off > TOLERANCE:
        raise SystemExit(
            f"no network of the peer is within {TOLERANCE:.0%} of ours in parameters and FLOPs: {off:.1%} at {width} channels"
        )
    torch.manual_seed(0)
    return peer_network(system, width, embedding)


def _condition_of(text: torch.Tensor) -> Condition:
    from diorama.types import TextEmbedding

    mask = torch.ones(text.shape[:2], dtype=torch.bool)
    return Condition(text=TextEmbedding(text, mask, text.mean(1)), label=torch.zeros(len(text), dtype=torch.long))


def _peer_work(network: UNet2DConditionModel, x: torch.Tensor, text: torch.Tensor) -> int:
    return flops(lambda: network(x, torch.ones(1, device=x.device), text))


def theirs(
    network: UNet2DConditionModel, scheduler: Any, condition: Condition, arguments: Arguments, steps: int, where: Ground
) -> Callable[[], Any]:
    pipe = StableDiffusionPipeline(
        vae=None,
        text_encoder=None,
        tokenizer=None,
        unet=network,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).to(where.device, where.dtype)
    pipe.set_progress_bar_config(disable=True)
    assert condition.text is not None
    tokens = condition.text.tokens.to(where.device, where.dtype)

    def sample() -> Any:
        generators = [torch.Generator().manual_seed(i) for i in range(arguments.batch)]
        return pipe(
            prompt_embeds=tokens,
            negative_prompt_embeds=torch.zeros_like(tokens),
            num_inference_steps=steps,
            guidance_scale=arguments.guidance,
            generator=generators,
            height=network.config.sample_size * pipe.vae_scale_factor,
            width=network.config.sample_size * pipe.vae_scale_factor,
            output_type="latent",
        )

    return sample


# --- the comparison -------------------------------------------------------------------------------


def main() -> None:
    arguments = tyro.cli(Arguments)
    diffusers.logging.set_verbosity_error()
    about = machine()
    pipeline = models.pipeline(arguments.preset, arguments.device, arguments.dtype)
    chosen, system = pipeline.ground, pipeline.system
    plain = Ground(chosen.device, torch.float32)
    condition = system.condition(models.prompts(arguments.batch), [system.styles[0]] * arguments.batch)
    assert condition.text is not None
    tokens = condition.text.tokens.shape[1]
    network = matched(system, tokens)
    work, side = our_work(system, condition), system.size // system.codec.config.stride
    peer_work = _peer_work(network, torch.randn(1, system.codec.config.latent, side, side), condition.text.tokens[:1])
    same = _copy(network)  # each row keeps its own precision
    rows = {
        "as it comes": (
            f"float32, DPM-Solver++, {PEER_STEPS} steps",
            (network, DPMSolverMultistepScheduler(steps_offset=1), PEER_STEPS, plain),
        ),
        "given ours": (
            f"{chosen.dtype_name}, Euler, {arguments.steps} steps",
            (same, EulerDiscreteScheduler(steps_offset=1), arguments.steps, chosen),
        ),
    }
    arms = {"ours": ours(system, condition, arguments, chosen)}
    for name, (_, (net, scheduler, steps, where)) in rows.items():
        arms[name] = theirs(net, scheduler, condition, arguments, steps, where)
    times = alternate(arms, arguments.rounds, chosen.device)
    table: list[dict[str, Any]] = [
        {
            "side": "diorama",
            "setting": f"{chosen.dtype_name}, Euler, {arguments.steps} steps",
            "s/picture": _each(times["ours"], arguments.batch),
            "parameters": parameters(system.network),
            "MFLOP/call": work / 1e6,
        }
    ]
    for name, (setting, (net, *_)) in rows.items():
        table.append(
            {
                "side": f"diffusers, {name}",
                "setting": setting,
                "s/picture": _each(times[name], arguments.batch),
                "parameters": parameters(net),
                "MFLOP/call": peer_work / 1e6,
                "theirs / ours": ratio(times[name], times["ours"]),
            }
        )
    about |= {"diffusers": diffusers.__version__, "batch": arguments.batch, "text tokens": tokens}
    report("Encoded sentences to latents, with guidance: median (quartiles)", table, about, arguments.json)


def _copy(network: UNet2DConditionModel) -> UNet2DConditionModel:
    other = UNet2DConditionModel.from_config(network.config).eval()
    other.load_state_dict(network.state_dict())
    return other


def _each(times: list[float], batch: int) -> Spread:
    return Spread.of([t / batch for t in times])


if __name__ == "__main__":
    main()
