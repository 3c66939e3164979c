"""diorama and four peers training a diffusion of pixels: whole steps, in one process and in turn.

    python -m venv .peers && .peers/bin/pip install -c constraints.txt . -r benchmarks/peers/requirements.txt
    .peers/bin/python benchmarks/peers/training_side_by_side.py --rounds 9

A step is noise, forward, backward, clipping, the optimiser and the moving average, on pictures that are there already, and all
of them learn to tell the noise. diffusers is run as its own unconditional training example runs it, denoising-diffusion-pytorch,
imagen-pytorch and dalle2-pytorch (whose variance learns too) as their Trainers do (which average every tenth step only), asked for
nothing. Ours is `ddpm`, its U-Net as large as the peer's in parameters and in FLOPs
of a call, both within five percent, so that what is compared is the code and not the size; FLOPs are those of a call that samples,
for our training saves some. Two rows for each: both in float32, and both in our precision. How good the pictures are is not asked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import dalle2_pytorch.dalle2_pytorch as dalle2
import denoising_diffusion_pytorch
import diffusers
import torch
import transformers
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
from diorama.systems.images.ddpm import DDPM
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
    diffusion = GaussianDiffusion(network, image_size=SIZE, timesteps=1000, auto_normalize=False)
    return trainer_steps(diffusion, partial(diffusion, images), where, EMA(diffusion, beta=0.995, update_every=10))


@cache
def imagen() -> Any:
    """imagen-pytorch, which asks the hub, when imported, how wide T5 is; no words are read here."""
    transformers.T5Config.from_pretrained = classmethod(lambda kind, *names, **how: kind(d_model=768))
    return import_module("imagen_pytorch")


def of_imagen() -> nn.Module:
    return imagen().Unet(
        dim=32, dim_mults=(1, 2, 4), cond_on_text=False, layer_attns=(False, False, True), layer_cross_attns=False
    )


def imagen_steps(network: nn.Module, images: Tensor, where: Ground) -> Callable[[], None]:
    system = imagen().Imagen((network,), image_sizes=(SIZE,), condition_on_text=False, auto_normalize_img=False)
    return trainer_steps(system, partial(system, images, unet_number=1), where, EMA(network, beta=0.9999, update_every=10))


def of_dalle2() -> nn.Module:
    return dalle2.Unet(dim=32, dim_mults=(1, 2, 4), channels=3)


def dalle2_steps(network: nn.Module, images: Tensor, where: Ground) -> Callable[[], None]:
    system = dalle2.Decoder(network, image_size=SIZE, unconditional=True, auto_normalize_img=False)
    return trainer_steps(system, partial(system, images, unet_number=1), where, EMA(network, beta=0.9999, update_every=10))


def trainer_steps(system: nn.Module, loss_of: Callable[[], Tensor], where: Ground, average: EMA) -> Callable[[], None]:
    """What their Trainers do between loading and saving."""
    optimizer = torch.optim.Adam(system.parameters(), lr=1e-4, betas=(0.9, 0.99))

    def step() -> None:
        with where.autocast():
            loss = loss_of()
        loss.backward()
        nn.utils.clip_grad_norm_(system.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()

    return lambda: [step() for _ in range(STEPS)] and None


# --- ours -----------------------------------------------------------------------------------------

# the blocks of that U-Net, level by level: widths that stay where sizes change, two blocks at the bottom, an embedding that shifts
LIKE_DIFFUSERS = UNetConfig(
    channels=3,
    levels=1.0,
    widths=(64, 96, 128),
    depth=1,
    attention=(False, False, True),
    embedding=256,
    scales=False,
    resample="keeping",
    closing=True,
)
# nothing of ours attends linearly at every size, as that one does; this costs as much
LIKE_DDPM = UNetConfig(channels=3, levels=1.0, widths=(32, 64, 80), depth=2, attention=(False, True, True), embedding=256)
LIKE_IMAGEN = UNetConfig(channels=3, levels=1.0, widths=(32, 64, 144), depth=1, attention=(False, False, True), embedding=256)
LIKE_DALLE2 = UNetConfig(channels=3, levels=1.0, widths=(32, 64, 144), depth=2, attention=(False, False, True), embedding=128)


def ours(config: UNetConfig, images: Tensor, where: Ground) -> Callable[[], None]:
    torch.manual_seed(0)
    system, batch = DDPM(UNet(config), SIZE), Batch(image=images)
    plan = Plan(steps=STEPS, batch=len(images), warmup=0, log_every=STEPS, dtype=where.dtype_name)
    return lambda: fit(system, lambda step, rank=0, world=1: batch, plan) and None


def work(network: nn.Module, *rest: Any) -> int:
    """FLOPs of one call for one picture."""
    nothing = {"image_embed": None} if isinstance(network, dalle2.Unet) else {}
    return flops(lambda: network(torch.zeros(1, 3, SIZE, SIZE, device="meta"), *rest, **nothing))


def check_alike(name: str, make: Callable[[], nn.Module], config: UNetConfig) -> dict[str, Any]:
    """How large both are. SystemExit where ours is not as large as the peer in parameters and in FLOPs."""
    with torch.device("meta"), torch.no_grad():  # no weights, only shapes
        theirs, mine = make(), UNet(config)
        sizes = parameters(theirs), parameters(mine)
        costs = work(theirs, torch.zeros(1, dtype=torch.int64)), work(mine, torch.ones(1), Condition())
    for what, (peer, own) in (("parameters", sizes), ("FLOPs", costs)):
        if abs(own / peer - 1) > TOLERANCE:
            raise SystemExit(f"ours has {own / peer - 1:+.1%} {what} beside {name}: no more than {TOLERANCE:.0%} are allowed")
    return {
        "peer's parameters": sizes[0],
        "MFLOP/call": costs[0] / 1e6,
        "ours": f"{sizes[1] / sizes[0]:.3f}, {costs[1] / costs[0]:.3f}",
    }


def main() -> None:
    arguments = tyro.cli(Arguments)
    diffusers.logging.set_verbosity_error()
    about, best, plain = machine(), ground(), ground(dtype="float32")
    images = torch.rand(arguments.batch, 3, SIZE, SIZE) * 2 - 1
    peers = {
        f"diffusers {diffusers.__version__}": (of_diffusers, diffusers_steps, LIKE_DIFFUSERS),
        "denoising-diffusion-pytorch": (of_ddpm, ddpm_steps, LIKE_DDPM),
        "imagen-pytorch": (of_imagen, imagen_steps, LIKE_IMAGEN),
        "dalle2-pytorch": (of_dalle2, dalle2_steps, LIKE_DALLE2),
    }
    table: list[dict[str, Any]] = []
    for name, (make, steps, config) in peers.items():
        sizes = check_alike(name, make, config)
        torch.manual_seed(0)
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
                    **sizes,
                    "theirs, pictures/s": Spread.of([n / t for t in other]),
                    "ours, pictures/s": Spread.of([n / t for t in mine]),
                    "ours / theirs": ratio(other, mine),
                }
            )
    about |= {"denoising-diffusion-pytorch": getattr(denoising_diffusion_pytorch, "__version__", "?"), "batch": arguments.batch}
    report("Training steps at 32 px: median (quartiles)", table, about, arguments.json)


if __name__ == "__main__":
    main()
