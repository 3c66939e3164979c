"""`diorama plan`: what training a system would take, before there is anything to train it on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from diorama.apps.flags import flag
from diorama.cards import Card, find, system_class
from diorama.errors import UserError
from diorama.recipe import SIZES
from diorama.training.plan import Plan as Training

if TYPE_CHECKING:
    from diorama.systems.base import System
    from diorama.training.budget import Footprint
    from diorama.types import Batch


@dataclass(frozen=True)
class Device:
    """An accelerator as its maker's data sheet has it."""

    gigabytes: float
    bfloat16: float  # TFLOP/s of dense matrix products, summed in float32
    float32: float  # TFLOP/s


DEVICES = {
    "h200": Device(141, 989, 67),
    "h100": Device(80, 989, 67),  # SXM
    "a100": Device(80, 312, 19.5),
    "l40s": Device(48, 362, 91.6),
    "4090": Device(24, 165.2, 82.6),
    "3090": Device(24, 71, 35.6),
}
LABELS = tuple("abcde")  # as many as the cards count with
USABLE = 0.9  # of a device's memory
DAY = 24 * 60 * 60


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Memory per GPU, FLOPs per step and days of a training run, and what they assume.

    The step is run without numbers, on the meta device: nothing is downloaded, and no GPU is needed.
    """

    system: Annotated[tyro.conf.Positional[str], flag("SYSTEM")]
    """Which one; see `diorama systems`."""
    preset: Annotated[str | None, flag("NAME")] = None
    """How large: the published size where there is one, else mini."""
    gpus: int = 1
    """How many, each with its own share of a step."""
    hardware: Literal["h200", "h100", "a100", "l40s", "4090", "3090"] = "h100"
    """Which."""
    batch: Annotated[int | None, flag("N")] = None
    """Samples per step, on all GPUs together; the paper's where it is known, else 32 on each."""
    steps: Annotated[int | None, flag("N")] = None
    """How many; the paper's where it is known, else 10,000."""
    pictures: Annotated[int | None, flag("N")] = None
    """How many samples to see in all, instead of --steps."""
    size: Annotated[int | None, flag("PIXELS")] = None
    """Pixels along a side; the paper's where it is known, else 128."""
    frames: int = 0
    """Frames of a clip, for systems that see clips."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of the matrix products; weights, gradients, optimiser and average stay in float32."""
    zero: Literal[0, 1, 2, 3] = 0
    """What GPUs share: 1 optimiser and average, 2 gradients too, 3 weights too. `diorama train` itself shares nothing."""
    utilisation: float = 0.35
    """Share of the hardware's peak that the step's FLOPs reach."""
    json: Annotated[bool, flag()] = False
    """The same as one JSON object."""

    def run(self) -> int:
        found = forecast(self, find(self.system))
        print(json.dumps(found, indent=2) if self.json else "\n".join(_lines(found)))
        return 0


@dataclass(frozen=True)
class Run:
    """What is to be trained, how much of it, and on what."""

    preset: str
    size: int
    batch: int
    steps: int
    whose: Mapping[str, str] = field(default_factory=dict)  # who says so, of size, batch and steps

    @classmethod
    def asked(cls, plan: Plan, card: Card) -> Run:
        """What the flags say, else the paper, else `diorama train`. Raises UserError for what cannot be."""
        if not card.presets:
            raise UserError(f"{card.slug} has no sizes of its own: plan what it stands on, which `diorama show {card.slug}` says")
        preset = plan.preset or ("paper" if "paper" in card.presets else "mini")
        card.check_preset(preset)
        usual = {"size": 128, "batch": Training.batch * plan.gpus, "steps": Training.steps}
        asked = {"size": plan.size, "batch": plan.batch, "steps": plan.steps}
        said: dict[str, dict[str, int]] = {
            "as asked": {name: value for name, value in asked.items() if value is not None},
            "the paper's": dict(card.published) if preset == "paper" else {},
            "`diorama train`'s own": usual,
        }
        whose = {name: next(who for who, values in said.items() if name in values) for name in usual}
        run = cls(preset, **{name: said[who][name] for name, who in whose.items()}, whose=whose)
        if plan.pictures is not None:
            if plan.steps is not None:
                raise UserError("--steps and --pictures both say how long: give one of them")
            if plan.pictures < 1:
                raise UserError(f"pictures {plan.pictures} is not allowed: use 1 or more")
            run = replace(run, steps=math.ceil(plan.pictures / max(1, run.batch)), whose={**whose, "steps": "as asked"})
        run.check(plan)
        return run

    def check(self, plan: Plan) -> None:
        whole = {"gpus": plan.gpus, "batch": self.batch, "steps": self.steps}
        if bad := next((name for name, value in whole.items() if value < 1), None):
            raise UserError(f"{bad} {whole[bad]} is not allowed: use 1 or more")
        if plan.frames < 0:
            raise UserError(f"frames {plan.frames} is not allowed: use 0 for pictures, or 1 or more for clips")
        if self.batch < plan.gpus:
            raise UserError(
                f"a batch of {self.batch} leaves some of {plan.gpus} GPUs without a sample: use --batch {plan.gpus} or more"
            )
        if self.size not in SIZES:
            raise UserError(f"size {self.size} is not allowed: use {SIZES.start} to {SIZES.stop - 1} pixels")
        if not 0 < plan.utilisation <= 1:
            raise UserError(f"utilisation {plan.utilisation} is not allowed: use a share above 0, at most 1")


def forecast(plan: Plan, card: Card) -> dict[str, Any]:
    """All that is told, as --json prints it. This is where torch is imported."""
    run, device = Run.asked(plan, card), DEVICES[plan.hardware]
    from diorama.training.budget import Sharing

    sharing = Sharing(plan.gpus, plan.zero)
    room, each, accumulate = USABLE * device.gigabytes * 1e9, math.ceil(run.batch / plan.gpus), 1
    system = _untrained(card, run)
    step = _step(system, plan, run, each)
    if each > 1 and step.peak(each, sharing) > room:
        sharing = replace(sharing, accumulated=True)
        accumulate = math.ceil(each / max(1, step.most(room, sharing)))
    at_once = math.ceil(each / accumulate)
    gigabytes = {
        **step.held(sharing),
        "gradients": step.gradients.max().item() / sharing.of(2),
        "activations": step.activations(at_once).max().item(),
        "peak": step.peak(at_once, sharing),
        "usable": room,
    }
    tflop = step.flops * run.batch / 1e12
    days = run.steps * tflop / (plan.gpus * getattr(device, plan.dtype) * plan.utilisation) / DAY
    return {
        "system": card.slug,
        "parameters": step.trained // 4,
        "published": card.published.get("parameters") if run.preset == "paper" else None,
        "run": {**asdict(run), "gpus": plan.gpus, "hardware": plan.hardware, "at_once": at_once, "accumulate": accumulate},
        "gigabytes": {name: round(value / 1e9, 3) for name, value in gigabytes.items()},
        "fits": gigabytes["peak"] <= room,
        "work": {"tflop_per_step": tflop, "tflop": run.steps * tflop, "days": days},
        "assumptions": list(_assumptions(plan, run, system, step, accumulate)),
    }


def _untrained(card: Card, run: Run) -> System:
    """The system on the meta device, with parts of the usual sizes to stand on."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    from diorama.codecs.conv import ConvCodec, ConvCodecConfig
    from diorama.codecs.quantise import VectorQuantiser, VectorQuantiserConfig
    from diorama.conditions.caption import CaptionConfig, CaptionEncoder
    from diorama.conditions.text import SentenceConfig, TextTower
    from diorama.parts import Part

    # f = 8 with 4 channels, as Rombach et al. 2022 have it for text-to-image (table 15)
    published = ConvCodecConfig(latent=4, patch=1, widths=(128, 256, 512, 512), depth=2, decoder_depth=3)
    codec = published if run.preset == "paper" else ConvCodecConfig()

    def part(name: str, kind: Any) -> Any:
        if issubclass(kind, TextTower):
            words = Tokenizer(WordLevel({"word": 0}, unk_token="word"))
            words.pre_tokenizer = Whitespace()
            if kind is TextTower:  # any that need not look at its numbers
                return CaptionEncoder(CaptionConfig(width=SentenceConfig.width), words)
            return kind(kind.Config(), words)
        if not issubclass(kind, Part):  # a whole picture model, of which ours is the usual one
            return system_class(find("flow")).new(preset=run.preset, size=run.size, labels=LABELS, part=part)
        usual = {ConvCodec: codec, VectorQuantiser: VectorQuantiserConfig(width=codec.latent)}
        return kind(usual.get(kind) or kind.Config())

    with torch.device("meta"):
        return system_class(card).new(preset=run.preset, size=run.size, labels=LABELS, part=part).train()


def _step(system: System, plan: Plan, run: Run, n: int) -> Footprint:
    import torch

    from diorama.training.blank import blank
    from diorama.training.budget import footprint

    def batch_of(n: int) -> Batch:
        batch = blank(system, n, run.size, plan.frames)
        return system.encode(batch) if system.cacheable else batch

    try:
        return footprint(system, batch_of, n, getattr(torch, plan.dtype))
    except (RuntimeError, TypeError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"a step of {system.card.slug} cannot be followed without real parts and numbers ({reason})") from error


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    run, memory, work = (found[name] for name in ("run", "gigabytes", "work"))
    said = [f"{found['parameters']:,} trained parameters", find(found["system"]).compared(run["preset"])]
    yield f"{found['system']}, preset {run['preset']}: {', '.join(filter(None, said))}"
    yield ""
    on = f"{run['gpus']} x {run['hardware']}" if run["gpus"] > 1 else run["hardware"]
    yield f"memory of each GPU ({on}), in GB"
    yield from (f"  {name:<12} {memory[name]:10.3f}  {WHAT[name]}" for name in WHAT if memory[name])
    at_once = f"{run['at_once']} samples at once" + (f", {run['accumulate']} times a step" if run["accumulate"] > 1 else "")
    fits = "fits" if found["fits"] else "DOES NOT FIT: share more with --zero, or take larger hardware"
    yield f"  {'at the most':<12} {memory['peak']:10.3f}  {at_once}: {fits} ({memory['usable']:.1f} usable)"
    yield ""
    yield f"step     {work['tflop_per_step']:,.4g} TFLOP for {run['batch']:,} samples of {run['size']} pixels"
    yield f"run      {run['steps']:,} steps, {run['steps'] * run['batch']:,} samples, {work['tflop']:,.4g} TFLOP"
    yield f"time     {work['days']:,.3g} days, {work['days'] * run['gpus']:,.3g} days of one GPU"
    yield ""
    yield "assumed"
    yield from (f"  {line}" for line in found["assumptions"])


WHAT = {
    "weights": "float32, frozen ones included",
    "gradients": "as they come while activations go",
    "buckets": "in which gradients travel between GPUs",
    "optimiser": "AdamW's two moments",
    "average": "of the weights, which is what samples",
    "activations": "at their most",
}


def _assumptions(plan: Plan, run: Run, system: System, step: Footprint, accumulate: int) -> Iterator[str]:
    device = DEVICES[plan.hardware]
    yield "; ".join(f"{name}: {who}" for name, who in run.whose.items())
    products = "matrix products in bfloat16, as torch's autocast has it" if plan.dtype == "bfloat16" else "no mixed precision"
    yield f"{products}; weights, gradients, optimiser (AdamW) and average in float32"
    yield SHARED[plan.zero] if plan.gpus > 1 else "one GPU holds all"
    yield "every activation is kept, none computed again (no checkpointing); attention never stores the scores of all pairs"
    if accumulate > 1:
        yield f"gradients are accumulated over {accumulate} batches, since one does not fit"
    if step.frozen:
        seen = "see each sample once, before" if system.cacheable else "see each sample in its step"
        yield f"frozen parts ({step.frozen / 4e6:,.4g} M numbers) {seen}"
    yield f"{len(LABELS)} labels and the longest sentences, where the system reads any"
    yield f"{USABLE:.0%} of {device.gigabytes:g} GB are usable; what kernels take for themselves is not counted"
    yield "FLOPs of matrix products, convolutions and attention, forward and backward"
    rate = f"{plan.utilisation:.0%} of {getattr(device, plan.dtype):g} TFLOP/s"
    yield f"each GPU reaches {rate}; nothing waits for data, for other GPUs or for a repair"


SHARED = (
    "every GPU holds all weights, gradients and moments (`diorama train`'s data parallelism)",
    "GPUs share moments and average (ZeRO stage 1, which `diorama train` does not do itself)",
    "GPUs share moments, average and gradients (ZeRO stage 2, which `diorama train` does not do itself)",
    "GPUs share all, two blocks' weights at a time in full (ZeRO stage 3, which `diorama train` does not do itself)",
)
