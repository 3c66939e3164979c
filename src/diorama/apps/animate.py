"""`diorama animate`: a clip from a sentence, or from a picture that is its first frame."""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from diorama.apps.films import check_film, write_film
from diorama.apps.flags import flag
from diorama.apps.output import find_model, free, slug, steps_bar, use_all_cores
from diorama.errors import UserError
from diorama.files import sha256
from diorama.models import known_as, weights_hash
from diorama.recipe import LONGEST_CLIP, ClipRecipe, Request

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")


@dataclass(frozen=True, kw_only=True)
class Animate:
    """A clip from a sentence, from a picture that is its first frame, or from both. It carries its recipe."""

    asked: Annotated[tyro.conf.Positional[tuple[str, ...]], flag("[PICTURE] [SENTENCE]")] = ()
    """A picture to begin with, a sentence, or the one and then the other."""
    out: Annotated[str | None, flag("FILE", "-o")] = None
    """.webp, .gif, .png or, where the package av is there, .mp4. Without it: SENTENCE-SEED.webp here."""
    negative: Annotated[str, flag("TEXT")] = ""
    """What to keep away from."""
    seed: Annotated[int | None, flag("INT")] = None
    """Drawn and printed where not given."""
    frames: Annotated[int | None, flag("INT")] = None
    """How many; the model's own number where not given. Beyond that it goes on from the last two it made."""
    fps: Annotated[float | None, flag("FLOAT")] = None
    """Frames a second; the model's own where not given."""
    steps: int = 20
    """Solver steps."""
    guidance: float = 4.0
    """How hard the sentence is pressed; 1 is no guidance."""
    pressed: float = 1.0
    """How hard the frames it goes on from are; 1 is no guidance."""
    style: Annotated[str | None, flag("NAME")] = None
    """One of the model's styles."""
    size: Annotated[int | None, flag("INT")] = None
    """Pixels along a side; what is not the model's own is resampled."""
    solver: str = "euler"
    """euler, heun or dpmpp_2m."""
    system: Annotated[str, flag("NAME|DIR")] = "world-video"
    """The model, as `diorama train video-ldm` made it."""
    device: str = "auto"
    """auto, cpu or cuda."""
    dtype: str = "auto"
    """auto, float32 or bfloat16."""
    recipe: Annotated[bool, flag()] = True
    """Leave the recipe out of the file."""

    @classmethod
    def again(cls, recipe: ClipRecipe, first: str | None, system: str, **where: Any) -> Animate:
        """What makes the clip of a recipe again. Raises UserError where model or first frame are not those that it was made with."""
        if (weights := weights_hash(find_model(system))) != recipe.weights:
            raise UserError(
                f"the clip was made with {recipe.maker}, not with {system}, weights {weights[:10]}: name that folder with --system"
            )
        if recipe.first and (first is None or not Path(first).is_file() or sha256(first) != recipe.first):
            raise UserError(f"the clip begins with a picture of SHA-256 {recipe.first[:10]}: name its file with --first")
        asked = (first, recipe.prompt) if recipe.first else (recipe.prompt,)
        kept = {f.name: getattr(recipe, f.name) for f in fields(cls) if hasattr(recipe, f.name)}
        return cls(**{**kept, "asked": tuple(filter(None, asked)), "system": system, **where})

    def run(self) -> int:
        photo, sentence = self._asked()
        request = Request(
            prompt=sentence,
            negative=self.negative,
            seed=secrets.randbelow(2**32) if self.seed is None else self.seed,
            **{name: getattr(self, name) for name in ("style", "steps", "guidance", "solver", "size")},
        )
        words = sentence or (photo.stem if photo else "")
        path = Path(self.out) if self.out else free(Path(f"{slug(words)}-{request.seed}.webp"))
        self._check(path)
        folder, began = find_model(self.system), time.perf_counter()
        use_all_cores()
        with steps_bar() as on_step:
            frames, recipe = self._made(request, photo, folder, on_step)
        write_film(
            frames, path, recipe.fps, {"parameters": recipe.parameters, "diorama": recipe.to_json()} if self.recipe else {}
        )
        print(f"{path}  seed {request.seed}  {len(frames)} frames  {time.perf_counter() - began:.2f} s", flush=True)
        return 0

    def _made(self, request: Request, photo: Path | None, folder: Path, on_step: Any) -> tuple[list[Image.Image], ClipRecipe]:
        """The frames, and what they were made from and with."""
        import torch

        import diorama
        from diorama.pictures import to_pil
        from diorama.pipeline import lanczos, standing, where
        from diorama.systems.base import load_system
        from diorama.systems.video.video_ldm import VideoLDM
        from diorama.types import Noise

        chosen, system = where(self.device, self.dtype), load_system(folder)
        if not isinstance(system, VideoLDM):
            raise UserError(f"{self.system} is a saved {system.card.slug}, which makes no clips: give a video-ldm")
        if request.style is not None and request.style not in system.styles:
            raise UserError(f"style {request.style!r} is not known: use {', '.join(system.styles) or 'none'}")
        moves: dict[str, Any] = {"frames": self.frames or system.frames, "pressed": self.pressed}
        system.to(chosen.device)
        with torch.inference_mode(), chosen.autocast():
            clip = system.sample(
                [request.prompt],
                [request.style],
                first=None if photo is None else _first(photo, system.size),
                negative=[request.negative] if request.negative else None,
                steps=self.steps,
                guidance=self.guidance,
                solver=self.solver,
                noise=Noise([request.seed], chosen.device),
                on_step=on_step,
                **moves,
            )[0].cpu()
        if not clip.isfinite().all():
            raise UserError(f"the clip of seed {request.seed} is not finite: lower the guidance ({self.guidance:g})")
        recipe = ClipRecipe(
            **{**asdict(request), "size": request.size or system.size},
            **standing(chosen, system),
            **moves,
            fps=self.fps or system.fps,
            first="" if photo is None else sha256(photo),
            model=known_as(folder),
            weights=weights_hash(folder),
            chunk=1,
            row=0,
            diorama=diorama.__version__,
        )
        return to_pil(torch.stack([lanczos(frame, int(recipe.size or 0)) for frame in clip.unbind(1)])), recipe

    def _asked(self) -> tuple[Path | None, str]:
        """The picture, where the first word names one, and the sentence."""
        words = list(self.asked)
        photo = Path(words.pop(0)) if words and words[0].lower().endswith(PICTURES) else None
        if len(words) > 1 or not self.asked:
            raise UserError(
                'say what to animate: a sentence, a picture, or a picture and a sentence, as in photo.png "a red ball"'
            )
        if photo is not None and not photo.is_file():
            raise UserError(f"{photo} does not exist: give a picture to begin with, or a sentence")
        return photo, words[0] if words else ""

    def _check(self, path: Path) -> None:
        check_film(path)
        if self.frames is not None and not 1 <= self.frames <= LONGEST_CLIP:
            raise UserError(f"frames {self.frames} is not allowed: use 1 to {LONGEST_CLIP}")
        if self.fps is not None and not 1 <= self.fps <= 60:
            raise UserError(f"fps {self.fps} is not allowed: use 1 to 60")


def _first(photo: Path, size: int) -> Tensor:
    """The picture as the first frame of a clip: (1, 4, 1, size, size) in [-1, 1]."""
    import torch

    from diorama.data.batches import fit, on_white
    from diorama.data.pictures import decode
    from diorama.data.source import Unreadable

    try:
        pixels = on_white(fit(decode(photo, str(photo)), size))
    except Unreadable as error:
        raise UserError(f"{error}: give another picture") from None
    return torch.from_numpy(pixels).float()[None, :, None] / 127.5 - 1
