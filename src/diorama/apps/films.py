"""Animations: the files they can be, and how one is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diorama.apps.output import check_folder
from diorama.errors import UserError
from diorama.files import atomic_file
from diorama.recipe import MOTIONS, save_animation

if TYPE_CHECKING:
    from PIL import Image

MP4 = ".mp4"


def check_film(path: Path) -> None:
    """Raises UserError where no animation can be written there."""
    suffix = path.suffix.lower()
    if suffix == MP4 and not find_spec("av"):
        raise UserError(f"{path}: .mp4 is written by the package av: pip install diorama[video], or use .webp or .gif")
    if suffix not in (*MOTIONS, MP4):
        raise UserError(f"{path} does not end in {', '.join((*MOTIONS, MP4))}: choose one of these")
    check_folder(path.parent, str(path))


def write_film(frames: Sequence[Image.Image], path: Path, fps: float, told: Mapping[str, str] | None = None) -> None:
    """The animation as its suffix says, whole or not at all, with what it carries (the recipe, as `recipe.save_animation` takes it)."""
    if path.suffix.lower() != MP4:
        return save_animation(frames, path, fps, told or {})
    from fractions import Fraction

    import av

    with atomic_file(path) as temporary, av.open(str(temporary), "w") as film:
        film.metadata.update({"comment": told["diorama"]} if told else {})
        stream: Any = film.add_stream("h264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height = (side + side % 2 for side in frames[0].size)  # halves of a pixel have no colour
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            film.mux(stream.encode(av.VideoFrame.from_image(frame.resize((stream.width, stream.height)))))
        film.mux(stream.encode())
