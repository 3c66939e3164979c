"""`diorama lift`: photographs that know where they were taken to a scene. `diorama look`: a scene from all sides."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from diorama.apps.flags import flag
from diorama.apps.output import check_folder, steps_bar, use_all_cores
from diorama.errors import UserError
from diorama.files import atomic_file

if TYPE_CHECKING:
    from torch import Tensor

    from diorama.scenes.cameras import Camera
    from diorama.scenes.gaussians import Gaussians

LOOKS = (".webp", ".gif", ".png")
MOST = 1000  # views
MILLISECONDS = 80  # of a picture in an animation


@dataclass(frozen=True, kw_only=True)
class Lift:
    """Photographs with their cameras to a scene of Gaussians, a .ply that splat viewers open.

    The folder holds transforms.json, as NeRF tools write it, or COLMAP's model as text (sparse/0) beside images/.
    """

    capture: Annotated[tyro.conf.Positional[str], flag("CAPTURE")]
    """The folder, or its transforms.json."""
    out: Annotated[str, flag("FILE", "-o")] = "scene.ply"
    """The .ply to write."""
    steps: int = 4000
    """How often a photograph is looked at."""
    minutes: Annotated[float | None, flag("FLOAT")] = None
    """The most it may take; what there is by then is written."""
    holdout: int = 0
    """Keep every so many-th photograph out of the fit and measure on those. 0 keeps out none."""
    size: int = 512
    """Pixels of the longer side: larger photographs are reduced."""
    most: int = 60_000
    """How many Gaussians there may be."""
    seed: int = 0
    """Of the first points and of the order."""
    device: str = "auto"
    """auto, cpu or cuda, which needs gsplat."""

    def run(self) -> int:
        self._check()
        use_all_cores()
        from diorama.scenes.capture import read_capture  # torch, from here on
        from diorama.scenes.ply import write_ply
        from diorama.systems.scenes.gaussian_splatting import GaussianSplatting, Growth, Views, plan
        from diorama.training.loop import fit
        from diorama.types import Noise

        whole = read_capture(self.capture, self.size)
        capture, kept_out = whole.split(self.holdout) if self.holdout else (whole, whole.rows(slice(0)))
        if len(capture) < 2:
            raise UserError(f"{self.capture} has {len(capture)} photographs to fit to: 2 or more are needed")
        first, growth = min(10_000, self.most // 2), Growth.within(self.steps)
        system = GaussianSplatting.over(capture, first=first, places=self.most, degree=3, growth=growth, noise=Noise([self.seed]))
        try:
            with steps_bar("fitting") as on_step:
                fit(system, Views(capture, self.seed), plan(self.steps, self.seed, self.device), on_step=self._timed(on_step))
        except OutOfTime:
            pass
        gaussians = system.gaussians().detach()
        write_ply(self.out, gaussians)
        told = f"{self.out}  {len(gaussians.means):,} Gaussians from {len(capture)} photographs"
        if len(kept_out):
            told += f", {_measured(gaussians, kept_out.images, kept_out.camera)} on {len(kept_out)} kept out"
        print(told)
        return 0

    def _check(self) -> None:
        if self.steps < 1 or self.size < 16 or self.most < 100:
            raise UserError("a scene needs --steps 1 or more, --size 16 or more and --most 100 or more")
        if self.holdout < 0 or self.holdout == 1:
            raise UserError(f"holdout {self.holdout} leaves nothing to fit to: use 2 or more, or 0")
        if Path(self.out).suffix != ".ply":
            raise UserError(f"{self.out} is no .ply: name one with --out")
        if self.minutes is not None and not self.minutes > 0:
            raise UserError(f"minutes {self.minutes} is not allowed: use a number above 0")
        check_folder(Path(self.out).parent, self.out)

    def _timed(self, on_step: Callable[[Any], None]) -> Callable[[Any], None]:
        end = time.monotonic() + 60 * self.minutes if self.minutes is not None else float("inf")

        def both(step: Any) -> None:
            on_step(step)
            if time.monotonic() > end:
                raise OutOfTime

        return both


class OutOfTime(Exception):
    """The minutes are over."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """A scene of Gaussians once around: an animation, or a sheet of pictures."""

    scene: Annotated[tyro.conf.Positional[str], flag("SCENE.ply")]
    """As `diorama lift` writes it, or any other tool."""
    out: Annotated[str, flag("FILE", "-o")] = "orbit.webp"
    """.webp or .gif for an animation, .png for a sheet."""
    views: int = 36
    """Pictures once around."""
    size: int = 256
    """Pixels along a side."""
    elevation: float = 20.0
    """Degrees of the camera above the scene's middle, -90 to 90."""
    distance: Annotated[float | None, flag("FLOAT")] = None
    """Of the camera from the middle, in the scene's own unit. Without it, far enough to see the inner half of all."""

    def run(self) -> int:
        if Path(self.out).suffix.lower() not in LOOKS:
            raise UserError(f"{self.out} cannot be written: use {', '.join(LOOKS)}")
        if not 16 <= self.size <= 4096:
            raise UserError(f"size {self.size} is not allowed: use 16 to 4096")
        if not 1 <= self.views <= MOST:
            raise UserError(f"views {self.views} is not allowed: use 1 to {MOST}")
        if not -90 <= self.elevation <= 90:
            raise UserError(f"elevation {self.elevation} is not allowed: use -90 to 90 degrees")
        if self.distance is not None and not 0 < self.distance < float("inf"):
            raise UserError(f"distance {self.distance} is not allowed: use a number above 0")
        check_folder(Path(self.out).parent, self.out)
        use_all_cores()
        import torch

        from diorama.pictures import sheet, to_pil
        from diorama.scenes.cameras import orbit
        from diorama.scenes.ply import read_ply
        from diorama.scenes.splat import render
        from diorama.types import Step

        gaussians = read_ply(self.scene)
        middle, reach = _middle(gaussians)
        distance = 3 * reach if self.distance is None else self.distance
        camera = orbit(self.views, self.elevation, distance, target=middle.tolist(), size=self.size)
        pictures = []
        with torch.no_grad(), steps_bar("looking") as on_step:
            for i in range(self.views):
                pictures += to_pil(render(gaussians, camera.rows(i)).image[None])
                on_step(Step(i, self.views))
        with atomic_file(self.out) as new:
            if new.suffix.lower() == ".png":
                sheet(pictures).save(new)
            else:
                pictures[0].save(new, save_all=True, append_images=pictures[1:], duration=MILLISECONDS, loop=0)
        print(f"{self.out}  {len(gaussians.means):,} Gaussians in {self.views} views")
        return 0


def _middle(gaussians: Gaussians) -> tuple[Tensor, float]:
    """Where most of it is, and how far its inner half reaches."""
    solid = gaussians.means[gaussians.opacities >= gaussians.opacities.median()]
    middle = solid.median(0).values
    return middle, float((solid - middle).norm(dim=1).median())


def _measured(gaussians: Gaussians, images: Tensor, camera: Camera) -> str:
    import torch

    from diorama.critics.fidelity import psnr, ssim
    from diorama.scenes.splat import render

    with torch.no_grad():
        found = torch.stack([render(gaussians, camera.rows(i)).image[:3].clamp(-1, 1) for i in range(len(images))])
    return f"{float(psnr(found, images[:, :3]).mean()):.2f} dB, SSIM {float(ssim(found, images[:, :3]).mean()):.3f}"
