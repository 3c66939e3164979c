"""diorama, diffusers and denoising-diffusion-pytorch training a diffusion of pixels: whole steps, in one process and in turn.

    python -m venv .peers && .peers/bin/pip install -c constraints.txt . -r benchmarks/peers/requirements.txt
    .peers/bin/python benchmarks/peers/training_side_by_side.py --rounds 9

A step is noise, forward, backward, clipping, the optimiser and the moving average, on pictures that are there already. diffusers is
run as its own unconditional training example runs it, denoising-diffusion-pytorch as its Trainer does. Each peer keeps a U-Net of
its own kind; ours is the one of `guided-diffusion`'s kind that is nearest to it in parameters and in FLOPs of a call, both within
five percent, so that what is compared is the code and not the size. Two rows for each: the peer in float32, as it comes, and in
our precision. How good the pictures are is not asked here.
"""

from __future__ import annotations

import bisect
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import denoising_diffusion_pytorch
import diffusers
import torch
import tyro
from denoising_diffusion_pytorch import GaussianDiffusion, Unet
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from ema_pytorch import EMA
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent))  # timing.py
from timing import Spread, alternate, flops, machine, ratio, report

from diorama.networks.precision import Ground, ground
from diorama.networks.unet import UNet, UNetConfig
from diorama.systems.images.guided_diffusion import GuidedDiffusion
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Batch, Condition

SIZE = 32  # pixels
TOLERANCE = 0.05  # how far ours may be from the peer in parameters and in FLOPs
STEPS = 4  # of training in one timed call: ours pays for starting and ending its loop in each


@dataclass(frozen=True)
class Arguments:
    """Time ours and each peer in turn, and report ours / theirs in pictures per second."""

    rounds: int = 9
    batch: int = 32
    json: Path | None = None


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# --- the peers ------------------------------------------------------------------------------------


def of_diffusers() -> UNet2DModel:
    return UNet2DModel(
        sample_size=SIZE,
        block_out_channels=(64, 96, 128),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )


def diffusers_steps(network: UNet2DModel, images: Tensor, where: Ground) -> Callable[[], None]:
    """The loop of examples/unconditional_image_generation, without its data and its logging."""
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6)
    average = EMAModel(network.parameters(), decay=0.9999, use_ema_warmup=True)

    def step() -> None:
        noise = torch.randn_like(images)
        t = torch.randint(0, 1000, (len(images),))
        with where.autocast():
            out = network(scheduler.add_noise(images, noise, t), t).sample
            loss = nn.functional.mse_loss(out.float(), noise)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.step(network.parameters())

    return lambda: [step() for _ in range(STEPS)] and None


def of_ddpm() -> Unet:
    return Unet(dim=32, dim_mults=(1, 2, 4), flash_attn=False)


def ddpm_steps(network: Unet, images: Tensor, where: Ground) -> Callable[[], None]:
    """What `Trainer.train` does between loading and saving."""
    diffusion = GaussianDiffusion(network, image_size=SIZE, timesteps=1000, auto_normalize=False)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=1e-4, betas=(0.9, 0.99))
    average = EMA(diffusion, beta=0.995, update_every=10)

    def step() -> None:
        with where.autocast():
            loss = diffusion(images)
        loss.backward()
        nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()

    return lambda: [step() for _ in range(STEPS)] and None


# --- ours -----------------------------------------------------------------------------------------


def ours(config: UNetConfig, images: Tensor, where: Ground) -> Callable[[], None]:
    torch.manual_seed(0)
    system = GuidedDiffusion(UNet(config), tuple("01234567"), SIZE)
    batch = Batch(image=images, label=torch.arange(len(images)) % 8)
    plan = Plan(steps=STEPS, batch=len(images), warmup=0, log_every=STEPS, dtype=where.dtype_name)
    return lambda: fit(system, lambda step, rank=0, world=1: batch, plan) and None


def work(network: nn.Module, *rest: Any) -> int:
    """FLOPs of one call for one picture."""
    return flops(lambda: network(torch.zeros(1, 3, SIZE, SIZE, device="meta"), *rest))


def nearest(wanted: int, flops_wanted: int) -> UNetConfig:
    """Ours nearest to these parameters and FLOPs at once: of a few forms, each as wide as the parameters ask. SystemExit where none is near."""
    level, asked = torch.ones(1, device="meta"), Condition(label=torch.zeros(1, dtype=torch.int64, device="meta"))
    found = []
    for second, third, depth, looks, wide in itertools.product(
        (1.0, 1.5, 2.0), (1.5, 2.0, 3.0), (1, 2), (False, True), (128, 512)
    ):
        shape = UNetConfig(channels=3, widths=(), depth=depth, attention=(False, looks, True), embedding=wide, labels=8)
        form = (1.0, second, third)

        def of(first: int, shape: UNetConfig = shape, form: tuple[float, ...] = form) -> UNet:
            with torch.device("meta"):  # no weights, only shapes
                return UNet(replace(shape, widths=tuple(8 * round(first * part / 8) for part in form)))

        firsts = range(32, 161, 8)
        at = bisect.bisect_left(firsts, wanted, key=lambda first: parameters(of(first)))
        for first in firsts[max(0, at - 1) : at + 1]:
            network = of(first)
            off = abs(parameters(network) / wanted - 1), abs(work(network, level, asked) / flops_wanted - 1)
            found.append((max(off), first, network.config))
    off, _, config = min(found, key=lambda each: each[:2])
    if off > TOLERANCE:
        raise SystemExit(
            f"none of ours is within {TOLERANCE:.0%} of {wanted:,} parameters and {flops_wanted:,} FLOPs: {off:.1%} off"
        )
    return config


def main() -> None:
    arguments = tyro.cli(Arguments)
    diffusers.logging.set_verbosity_error()
    about, best, plain = machine(), ground(), ground(dtype="float32")
    images = torch.rand(arguments.batch, 3, SIZE, SIZE) * 2 - 1
    peers = {
        f"diffusers {diffusers.__version__}": (of_diffusers, diffusers_steps),
        "denoising-diffusion-pytorch": (of_ddpm, ddpm_steps),
    }
    table: list[dict[str, Any]] = []
    for name, (make, steps) in peers.items():
        torch.manual_seed(0)
        with torch.device("meta"):
            shape = make()
        size, cost = parameters(shape), work(shape, torch.zeros(1, dtype=torch.int64, device="meta"))
        config = nearest(size, cost)
        rows = {"float32": plain, "our precision": best}
        arms = {f"theirs, {row}": steps(make(), images, where) for row, where in rows.items()}
        arms |= {f"ours, {row}": ours(config, images, where) for row, where in rows.items()}
        times = alternate(arms, arguments.rounds)
        n = STEPS * arguments.batch
        for row in rows:
            mine, other = times["ours, our precision" if row == "our precision" else "ours, float32"], times[f"theirs, {row}"]
            table.append(
                {
                    "peer": name,
                    "both in": rows[row].dtype_name,
                    "peer's parameters": size,
                    "MFLOP/call": cost / 1e6,
                    "theirs, pictures/s": Spread.of([n / t for t in other]),
                    "ours, pictures/s": Spread.of([n / t for t in mine]),
                    "ours / theirs": ratio(other, mine),
                }
            )
    about |= {"denoising-diffusion-pytorch": getattr(denoising_diffusion_pytorch, "__version__", "?"), "batch": arguments.batch}
    report("Training steps at 32 px: median (quartiles)", table, about, arguments.json)


if __name__ == "__main__":
    main()
