"""What the foundation models are and what each looks at, as plain data. Imports nothing heavy.

All are trained on the miniature world, whose pictures are made as they are needed; a twelfth of its (colour, shape) pairs is
never shown to any of them, so that whatever stands on them can be asked for something new.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from diorama.assets import asset
from diorama.errors import UserError
from diorama.models import INDEX, made

HELD_OUT = 1 / 12  # of the (colour, shape) pairs: five of 64


@dataclass(frozen=True, kw_only=True)
class Foundation:
    """One model: the system it is, what it looks at and what it stands on; `plans` has how it is trained."""

    name: str
    system: str
    summary: str
    preset: str = "nano"
    size: int = 32  # pixels along a side
    rules: Mapping[str, Any] = field(default_factory=dict)  # of `worlds.scene.Rules`, or of ClipRules
    moving: bool = False  # it looks at clips
    around: bool = False  # it looks at single solids from all sides
    label: str = "style"
    form: str | None = None  # of the captions
    base: str = ""  # the foundation model whose parts it stands on
    storage: str = "int8"


CLEAR = ("medium", "large")  # a small thing is eight pixels of 32 across: its shape takes ten times the pictures to learn
PAINTED = {
    "most": 2,
    "sizes": ("large",),
    "styles": ("flat",),
    "textures": ("plain",),
    "grounds": ("plain", "gradient"),
    "subjects": 0.0,
    "turn": 0.0,  # upright: in every turn a shape is learned anew
}
READ = {"most": 2, "sizes": ("large",), "turn": 0.0}  # what is painted, and that in every style, texture and ground
SINGLE = {**PAINTED, "most": 1}
STATUE = {
    "shapes": ("circle", "square", "triangle", "star"),
    "sizes": ("large",),
    "textures": ("plain",),
    "materials": ("matte",),
    "tones": ("white", "grey", "cream"),  # the spot of a face is black
}

_ALL = (
    *(
        Foundation(
            name=f"world-codec-f{f}",
            system="autoencoder",
            preset=f"f{f}",
            size=size,
            summary=f"pictures to latents {f} times smaller along each side, and back",
        )
        for f, size in ((2, 64), (4, 64), (8, 64), (16, 64))
    ),
    Foundation(
        name="world-vq",
        system="vq",
        preset="mini",
        summary="pictures of 32 px to 8 x 8 tokens of a codebook, and back",
    ),
    Foundation(
        name="world-clip",
        system="clip",
        rules=READ,
        summary="pictures and captions in one space: guidance, retrieval, zero-shot classes",
    ),
    Foundation(
        name="world-scorer",
        system="clip",
        rules=READ,
        summary="a second CLIP, another seed and other pictures: it only scores",
    ),
    Foundation(
        name="world-flow",
        system="flow",
        rules=PAINTED,
        form="short",
        summary="captions to pictures of 32 px: one or two large plain things, by a rectified flow of pixels",
    ),
    Foundation(
        name="world-views",
        system="flow",
        around=True,
        rules=STATUE,
        summary="captions with view words to pictures of 32 px: one solid with a face, from the front, side, back or overhead",
    ),
    Foundation(
        name="world-classes",
        system="guided-diffusion",
        rules=SINGLE,
        label="shape",
        summary="one of eight shapes, or any, to a picture of 32 px, by a diffusion of pixels",
    ),
    Foundation(
        name="world-noisy",
        system="classifier",
        preset="noisy",
        rules=SINGLE,
        label="shape",
        summary="which of eight shapes a noisy picture shows, at any level of noise: for classifier guidance",
    ),
    Foundation(
        name="world-tokens",
        system="masked-tokens",
        preset="mini",
        rules=PAINTED,
        form="short",
        base="world-vq",
        summary="captions to pictures of 32 px, by filling in tokens a few at a time",
    ),
    Foundation(
        name="world-features",
        system="classifier",
        preset="mini",
        label="kind",
        rules={"most": 1, "sizes": CLEAR, "subjects": 0.0},
        summary="what one thing is, in any style, and the features that distances between sets of pictures are taken in",
    ),
    Foundation(
        name="world-motion",
        system="classifier",
        preset="clip",
        moving=True,
        label="law",
        rules={"frames": 8, "world": SINGLE, "cameras": ("still",), "changes": 0.0},
        summary="by which law a thing moves in a clip: features for distances between sets of clips",
    ),
    Foundation(
        name="world-video",
        system="video-ldm",
        moving=True,
        label="motion",
        rules={"frames": 8, "world": PAINTED, "cameras": ("still",), "changes": 0.0},
        form="still",  # its words are the picture model's, which never read of motion
        base="world-flow",
        storage="bfloat16",
        summary="captions, or a first frame, to clips of 32 px: layers over time in the flow of pixels",
    ),
    Foundation(
        name="world-vit",
        system="mae",
        preset="mini",
        summary="a transformer that saw a quarter of each picture and learned the rest: dense features without labels",
    ),
    Foundation(
        name="world-sam",
        system="sam",
        size=64,
        summary="a point or a box to masks of what may be meant: a part, a thing or a group of things",
    ),
)

FOUNDATIONS = {foundation.name: foundation for foundation in _ALL}


def find(name: str) -> Foundation:
    """The foundation model of this name; UserError with the nearest names where there is none."""
    if name not in FOUNDATIONS:
        near = get_close_matches(name, FOUNDATIONS, 2, 0.5) or list(FOUNDATIONS)
        raise UserError(f"foundation {name!r} is not known: use {' or '.join(near)}; `diorama foundations` lists all")
    return FOUNDATIONS[name]


def folder_of(name: str) -> Path | None:
    """Where the model is now: the package's own, the cache's, or nowhere."""
    places = (asset(find(name).name), made() / name)
    return next((place for place in places if (place / INDEX).is_file()), None)
