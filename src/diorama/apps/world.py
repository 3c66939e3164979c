"""`diorama world`: the miniature world, shown to a person."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from diorama.apps.answers import ASKS, Answer, Made, Moving, Wish, card
from diorama.apps.flags import flag
from diorama.apps.output import make_folder
from diorama.errors import UserError

MOST = 1000  # scenes at once
MOST_VIEWS = 36
AT_ONCE = 16  # scenes drawn together


@dataclass(frozen=True, kw_only=True)
class World:
    """Pictures of the miniature world with their exact truth: scene i of a seed is the same whenever it is made."""

    seed: int = 0
    """Which world."""
    first: int = 0
    """The number of the first scene."""
    n: int = 16
    """How many scenes."""
    size: int = 64
    """Pixels along a side, 32 to 128."""
    ask: str = "picture,mask,boxes,caption"
    """What to give, with commas between.
    Flat: picture, mask, boxes, edges, parts.
    In space: views, depth, normals, cameras, from all around the scene; orbit, an animation once around it; points, a laser scanner's.
    In time: clip, flow, tracks, sound. They are of one clip, which has rules of its own: mostly another scene than the picture of its number.
    In both: tour, a clip whose things move on the floor while the camera goes a quarter of the way around, with all its truth.
    Others of the same number: figure, room.
    In words: caption, scene."""
    form: Annotated[str | None, flag("NAME")] = None
    """Captions of one form: short, long, relation, negation or alt. Without it, a mixture."""
    textures: Annotated[str | None, flag("NAMES")] = None
    """Only these in pictures and what is of the same scene, with commas between. Rare ones, which no model was shown, come only so."""
    styles: Annotated[str | None, flag("NAMES")] = None
    """Only these, likewise."""
    views: int = 4
    """Cameras of views, depth, normals and cameras once around the scene, 1 to 36."""
    elevation: float = 25.0
    """Degrees of the cameras above the ground, -90 to 90; below -4 they are under it, which only scenes with a clear ground allow."""
    out: Annotated[str, flag("DIR", "-o")] = "world"
    """A folder for the files, each named by its scene's number, for world.jsonl and sheet.png. Files of the same names are replaced."""

    def run(self) -> int:
        asks = self._asks()
        if not 1 <= self.n <= MOST:
            raise UserError(f"n {self.n} is not allowed: use 1 to {MOST}")
        if not 1 <= self.views <= MOST_VIEWS:
            raise UserError(f"views {self.views} is not allowed: use 1 to {MOST_VIEWS}")
        if not -90 <= self.elevation <= 90:
            raise UserError(f"elevation {self.elevation:g} is not allowed: use -90 to 90 degrees")
        folder = Path(self.out)
        from diorama.apps.output import use_all_cores
        from diorama.worlds.captions import FORMS  # torch, from here on

        if self.form not in (None, *FORMS):
            raise UserError(f"form {self.form!r} is not known: use {', '.join(FORMS)}")
        use_all_cores()
        chunks = (self._answers(range(i, min(i + AT_ONCE, self.n)), asks) for i in range(0, self.n, AT_ONCE))
        begun = next(chunks)  # what is impossible is told before the folder is made
        make_folder(folder)
        lines, cards = [], []
        for answer in chain(begun, *chunks):
            for name, content in answer.files.items():
                _save(content, folder / name)
            lines.append(json.dumps(answer.line) + "\n")
            cards += [card(answer)] if answer.shown else []
        if cards:
            from diorama.pictures import sheet

            _save(sheet(cards, gap=8), folder / "sheet.png")
        _save("".join(lines), folder / "world.jsonl")
        print(f"{folder}  {self.n} scenes of world {self.seed} from {self.first}, {self.size} x {self.size}")
        return 0

    def _asks(self) -> tuple[str, ...]:
        asks = _words(self.ask)
        if unknown := [word for word in asks if word not in ASKS]:
            raise UserError(f"{unknown[0]!r} cannot be asked of the world: use {', '.join(ASKS)}")
        if not asks:
            raise UserError(f"nothing is asked for: use {', '.join(ASKS)}")
        return tuple(word for word in ASKS if word in asks)

    def _answers(self, numbers: Sequence[int], asks: Sequence[str]) -> list[Answer]:
        """What is asked of these scenes, in the order of `ASKS`."""
        from diorama.worlds.scene import Rules, scene

        rules = Rules()
        if self.textures is not None:
            rules = replace(rules, textures=_words(self.textures))
        if self.styles is not None:
            rules = replace(rules, styles=_words(self.styles))
        wish = Wish(seed=self.seed, size=self.size, form=self.form, views=self.views, elevation=self.elevation)
        made = Made([scene(self.seed, self.first + i, rules) for i in numbers], wish)
        answers = [Answer({"index": s.index, "style": s.style}) for s in made.scenes]
        for i, answer in enumerate(answers):
            for ask in asks:
                ASKS[ask](made, i, answer)
        return answers


def _words(told: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in told.split(",") if word.strip())


def _save(content: Any, path: Path) -> None:
    """A picture, an animation, a sound, an array, a text, or what JSON can hold."""
    import numpy as np
    import torch
    from PIL import Image

    from diorama.files import atomic_file, write_json
    from diorama.worlds.sound import write_wav

    if isinstance(content, dict):
        return write_json(path, content)
    if isinstance(content, torch.Tensor):
        return write_wav(path, content)
    with atomic_file(path) as temporary:
        if isinstance(content, (Image.Image, Moving)):
            content.save(temporary)
        elif isinstance(content, np.ndarray):
            np.save(temporary, content)
        else:
            temporary.write_text(content, encoding="utf-8")
