"""Pictures of Gaussians on a processor: our kernels beside a tile renderer in PyTorch, and how the cost grows.

    python benchmarks/splatting.py --rounds 5

Both get the same splats, sorted alike, and end a splat where its alpha is below 1/255; the peer composites each tile in a few vectorised
operations, and torch's autograd takes it back. A frame is projection and picture without a gradient, an iteration is both and the gradient
of all parameters. The peer takes the tile size that suits it best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import torch
import tyro
from timing import Spread, alternate, machine, ratio, report
from torch import Tensor

from diorama.scenes.cameras import Camera, orbit
from diorama.scenes.gaussians import DARK, LEAST, MOST, Gaussians, Splats, splats
from diorama.scenes.splat import rasterise, reach

Rasteriser = Callable[[Splats, int, int], Tensor]


@dataclass(frozen=True)
class Arguments:
    """Time frames and training iterations on the processor."""

    rounds: int = 5
    gaussians: tuple[int, ...] = (2000, 8000, 32000)
    sizes: tuple[int, ...] = (64, 128, 256)
    tiles: tuple[int, ...] = (16, 32, 64)  # pixels along a side, of the peer
    threads: int | None = None
    json: Path | None = None


def peer(side: int) -> Rasteriser:
    """A tile renderer in plain torch."""

    def draw(found: Splats, height: int, width: int) -> Tensor:
        found = Splats(*(part[found.features[:, 3].argsort(stable=True)] for part in found))
        with torch.no_grad():
            far = reach(found.conics, found.opacities) + 1e-3
            low, high = found.places - far, found.places + far
            seen = found.opacities > LEAST
        rows = []
        for top in range(0, height, side):
            row = []
            for left in range(0, width, side):
                bottom, right = min(top + side, height), min(left + side, width)
                corner, end = low.new_tensor([left, top]), low.new_tensor([right, bottom])
                here = (seen & (high > corner).all(1) & (low < end).all(1)).nonzero()[:, 0]
                row.append(_tile(Splats(*(part[here] for part in found)), left, top, right, bottom))
            rows.append(torch.cat(row, 1))
        return torch.cat(rows, 0)

    return draw


def _tile(found: Splats, left: int, top: int, right: int, bottom: int) -> Tensor:
    dx = found.places[:, :1, None] - (torch.arange(left, right) + 0.5)  # (k, 1, w)
    dy = found.places[:, 1:, None] - (torch.arange(top, bottom) + 0.5)  # (k, 1, h)
    dy = dy.mT  # (k, h, 1)
    xx, xy, yy = found.conics[..., None, None].unbind(1)
    alpha = (found.opacities[:, None, None] * torch.exp(-(xx * dx * dx + yy * dy * dy) / 2 - xy * dx * dy)).clamp_max(MOST)
    alpha = torch.where(alpha < LEAST, 0.0, alpha)
    left_over = (1 - alpha).cumprod(0)
    before = torch.cat([torch.ones_like(left_over[:1]), left_over[:-1]])[: len(alpha)]
    weight = torch.where(left_over < DARK, 0.0, alpha * before)
    return torch.cat([torch.einsum("khw,kc->hwc", weight, found.features), 1 - weight.sum(0)[..., None]], 2)


def cloud(n: int) -> Gaussians:
    """n Gaussians in a ball, together as large whatever their number."""
    draw = torch.randn(n, 59, generator=torch.Generator().manual_seed(0))
    means, scales, turns, opacities, harmonics = draw.split([3, 3, 4, 1, 48], 1)
    scales = 0.4 * scales - 3.0 - torch.tensor(n / 2000).log() / 3
    parts = (0.3 * means, scales, turns, opacities[:, 0], 0.3 * harmonics.unflatten(1, (16, 3)))
    return Gaussians(*(part.contiguous().requires_grad_() for part in parts))


def frame(gaussians: Gaussians, camera: Camera, draw: Rasteriser) -> Callable[[], Any]:
    return torch.no_grad()(lambda: draw(splats(gaussians, camera), camera.height, camera.width))


def iteration(gaussians: Gaussians, camera: Camera, draw: Rasteriser) -> Callable[[], Any]:
    def step() -> None:
        draw(splats(gaussians, camera), camera.height, camera.width).square().mean().backward()
        for part in gaussians:
            part.grad = None

    return step


def main() -> None:
    arguments = tyro.cli(Arguments)
    about = machine(arguments.threads)
    numba.set_num_threads(about["threads"])
    middle = arguments.gaussians[len(arguments.gaussians) // 2], arguments.sizes[-1]
    cases = [(n, arguments.sizes[-1]) for n in arguments.gaussians] + [(middle[0], size) for size in arguments.sizes[:-1]]
    rows = [row(n, size, arguments) for n, size in cases]
    report("Pictures of Gaussians: median (quartiles)", rows, {**about, "numba": numba.__version__}, arguments.json)


def row(n: int, size: int, arguments: Arguments) -> dict[str, Any]:
    gaussians, camera = cloud(n), orbit(1, 20.0, size=size).rows(0)
    found: dict[str, Any] = {"Gaussians": n, "pixels": f"{size} x {size}"}
    for name, work in {"frame": frame, "iteration": iteration}.items():
        arms = {"ours": work(gaussians, camera, rasterise)}
        arms |= {f"peer {side}": work(gaussians, camera, peer(side)) for side in arguments.tiles if side <= size}
        times = alternate(arms, arguments.rounds)
        best = min((arm for arm in arms if arm != "ours"), key=lambda arm: Spread.of(times[arm]).median)
        found |= {
            f"{name}s/s": Spread.of([1 / t for t in times["ours"]]),
            f"peer's {name}s/s": Spread.of([1 / t for t in times[best]]),
        }
        found |= {f"{name}: ratio": ratio(times[best], times["ours"])}
    return found


if __name__ == "__main__":
    main()
