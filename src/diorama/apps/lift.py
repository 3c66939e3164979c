"""`diorama lift`: photographs that know where they were taken, or a sentence, to a scene. `diorama look`: a scene from all sides."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from diorama.apps.films import check_film, write_film
from diorama.apps.flags import flag
from diorama.apps.output import check_folder, find_model, slug, steps_bar, use_all_cores
from diorama.errors import UserError
from diorama.files import atomic_file

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from diorama.scenes.cameras import Camera
    from diorama.scenes.gaussians import Gaussians

MOST = 1000  # views
FPS = 12.5  # of an orbit


@dataclass(frozen=True, kw_only=True)
class Lift:
    """Photographs with their cameras, or a sentence, to a scene: a .ply of Gaussians that splat viewers open, or a .glb.

    A folder of photographs holds transforms.json, as NeRF tools write it, or COLMAP's model as text (sparse/0) beside images/. Of a
    sentence ("a red cube with a face") a model that knows single things from all sides dreams one (DreamFusion).
    """

    what: Annotated[tyro.conf.Positional[str], flag("CAPTURE|SENTENCE")]
    """The folder, or its transforms.json; or a sentence of two words or more."""
    out: Annotated[str | None, flag("FILE", "-o")] = None
    """The file to write: scene.ply where not given, for a sentence its words and .glb. A .glb is a mesh, of sentences alone."""
    steps: Annotated[int | None, flag("INT")] = None
    """How often a photograph, or a view of what is dreamt, is looked at: 4000 and 1000 where not given."""
    minutes: Annotated[float | None, flag("FLOAT")] = None
    """The most it may take; what there is by then is written."""
    holdout: int = 0
    """Keep every so many-th photograph out of the fit and measure on those. 0 keeps out none."""
    size: int = 512
    """Pixels of the longer side: larger photographs are reduced."""
    most: Annotated[int | None, flag("INT")] = None
    """How many Gaussians there may be: 60000 and, of a sentence, 2000 where not given."""
    system: Annotated[str, flag("NAME|DIR")] = "world-views"
    """The model that dreams: one that paints in latents and knows words for views."""
    orbit: Annotated[str | None, flag("FILE")] = None
    """Of a sentence, the thing once around: .webp, .gif or .mp4, or .png for a sheet. Beside the scene, as .webp, where not given."""
    seed: int = 0
    """Of the first points and of the order; of the views of a dream."""
    device: str = "auto"
    """auto, cpu or cuda, which needs gsplat."""

    def run(self) -> int:
        if not self.what.strip():
            raise UserError("nothing to lift: give a folder of posed photographs, or a sentence")
        return self._fit() if self._is_path else self._dream()

    @property
    def _is_path(self) -> bool:
        return " " not in self.what.strip() or Path(self.what).exists()

    # --- photographs ------------------------------------------------------------------------------

    def _fit(self) -> int:
        out, steps, most = self.out or "scene.ply", self.steps or 4000, self.most or 60_000
        self._check(out, (".ply",))
        from diorama.scenes.capture import read_capture  # torch, from here on
        from diorama.scenes.ply import write_ply
        from diorama.systems.scenes.gaussian_splatting import GaussianSplatting, Growth, Views, plan
        from diorama.training.loop import fit
        from diorama.types import Noise

        whole = read_capture(self.what, self.size)
        capture, kept_out = whole.split(self.holdout) if self.holdout else (whole, whole.rows(slice(0)))
        if len(capture) < 2:
            raise UserError(f"{self.what} has {len(capture)} photographs to fit to: 2 or more are needed")
        first, growth = min(10_000, most // 2), Growth.within(steps)
        system = GaussianSplatting.over(capture, first=first, places=most, degree=3, growth=growth, noise=Noise([self.seed]))
        with self._in_time("fitting") as on_step:
            fit(system, Views(capture, self.seed), plan(steps, self.seed, self.device), on_step=on_step)
        gaussians = system.gaussians().detach()
        write_ply(out, gaussians)
        told = f"{out}  {len(gaussians.means):,} Gaussians from {len(capture)} photographs"
        if len(kept_out):
            told += f", {_measured(gaussians, kept_out.images, kept_out.camera)} on {len(kept_out)} kept out"
        print(told)
        return 0

    # --- a sentence -------------------------------------------------------------------------------

    def _dream(self) -> int:
        out = Path(self.out or f"{slug(self.what)}.glb")
        orbit = Path(self.orbit or out.with_suffix(".webp"))
        self._check(str(out), (".ply", ".glb"))
        check_film(orbit)
        folder = find_model(self.system)
        from diorama.pictures import to_pil  # torch, from here on
        from diorama.scenes.glb import write_glb
        from diorama.scenes.ply import write_ply
        from diorama.systems.base import load_system
        from diorama.systems.images.latent import LatentPainter
        from diorama.systems.scenes.dreamfusion import MANY, PLAN, PRESETS, Cloud, DreamFusion, VoxelField

        painter = load_system(folder)
        if not isinstance(painter, LatentPainter):
            raise UserError(
                f"{self.system} cannot dream: use a model that paints in latents and knows words for views, as world-views"
            )
        shape = replace(MANY, places=self.most or MANY.places) if out.suffix == ".ply" else PRESETS["mini"]
        system = DreamFusion.over(self.what, painter, shape)
        with self._in_time("dreaming") as on_step:
            system.dream(replace(PLAN, steps=self.steps or 1000, seed=self.seed, device=self.device), on_step)
        if isinstance(system.scene, VoxelField):
            mesh, colours = system.scene.mesh()
            if not len(mesh.faces):
                raise UserError(f"nothing solid has come of {self.what!r} so far: use more --steps")
            write_glb(out, mesh, colours)
        elif isinstance(system.scene, Cloud):
            write_ply(out, system.scene.gaussians().detach())
        write_orbit(orbit, to_pil(system.turned(24, 96)))
        print(f"{out}  {orbit}")
        return 0

    # --- both -------------------------------------------------------------------------------------

    def _check(self, out: str, kinds: Sequence[str]) -> None:
        if any(n is not None and n < least for n, least in ((self.steps, 1), (self.size, 16), (self.most, 100))):
            raise UserError("a scene needs --steps 1 or more, --size 16 or more and --most 100 or more")
        if self.holdout < 0 or self.holdout == 1:
            raise UserError(f"holdout {self.holdout} leaves nothing to fit to: use 2 or more, or 0")
        if Path(out).suffix not in kinds:
            raise UserError(f"{out} is no {' or '.join(kinds)}: name one with --out")
        if self.seed < 0:
            raise UserError(f"seed {self.seed} is not allowed: use 0 or more")
        if self.minutes is not None and not self.minutes > 0:
            raise UserError(f"minutes {self.minutes} is not allowed: use a number above 0")
        check_folder(Path(out).parent, out)
        use_all_cores()

    @contextmanager
    def _in_time(self, title: str) -> Iterator[Callable[[Any], None]]:
        """A bar for the steps within; when the minutes are over, they end."""
        try:
            with steps_bar(title) as on_step:
                yield self._timed(on_step)
        except OutOfTime:
            pass

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
    """.webp, .gif or, with the package av, .mp4 for an animation; .png for a sheet."""
    views: int = 36
    """Pictures once around."""
    size: int = 256
    """Pixels along a side."""
    elevation: float = 20.0
    """Degrees of the camera above the scene's middle, -90 to 90."""
    distance: Annotated[float | None, flag("FLOAT")] = None
    """Of the camera from the middle, in the scene's own unit. Without it, far enough to see the inner half of all."""

    def run(self) -> int:
        check_film(Path(self.out))
        if not 16 <= self.size <= 4096:
            raise UserError(f"size {self.size} is not allowed: use 16 to 4096")
        if not 1 <= self.views <= MOST:
            raise UserError(f"views {self.views} is not allowed: use 1 to {MOST}")
        if not -90 <= self.elevation <= 90:
            raise UserError(f"elevation {self.elevation} is not allowed: use -90 to 90 degrees")
        if self.distance is not None and not 0 < self.distance < float("inf"):
            raise UserError(f"distance {self.distance} is not allowed: use a number above 0")
        use_all_cores()
        import torch

        from diorama.pictures import to_pil
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
        write_orbit(Path(self.out), pictures)
        print(f"{self.out}  {len(gaussians.means):,} Gaussians in {self.views} views")
        return 0


def write_orbit(out: Path, pictures: Sequence[Image.Image]) -> None:
    """As a sheet where the file is a .png, else as an animation."""
    if out.suffix.lower() != ".png":
        return write_film(pictures, out, FPS)
    from diorama.pictures import sheet

    with atomic_file(out) as new:
        sheet(pictures).save(new)


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
