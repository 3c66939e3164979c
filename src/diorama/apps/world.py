"""`diorama world`: the miniature world, shown to a person."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from diorama.apps.flags import flag
from diorama.apps.output import make_folder
from diorama.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

    from diorama.worlds.render import Views
    from diorama.worlds.scene import Scene

ASKS = ("picture", "mask", "boxes", "caption", "scene")
MOST = 1000  # pictures at once


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
    """What to give, with commas between: picture, mask, boxes, caption, scene."""
    form: Annotated[str | None, flag("NAME")] = None
    """Captions of one form: short, long, relation, negation or alt. Without it, a mixture."""
    out: Annotated[str, flag("DIR", "-o")] = "world"
    """A folder for the files: NUMBER.png, NUMBER-mask.png, world.jsonl and sheet.png. Files of the same names are replaced."""

    def run(self) -> int:
        asks = self._asks()
        if not 1 <= self.n <= MOST:
            raise UserError(f"n {self.n} is not allowed: use 1 to {MOST}")
        folder = Path(self.out)
        from diorama.apps.output import use_all_cores
        from diorama.worlds.render import render  # torch, from here on
        from diorama.worlds.scene import scene

        use_all_cores()
        scenes = [scene(self.seed, self.first + i) for i in range(self.n)]
        views = render(scenes, self.size)
        lines = [self._said(made, views, i, asks) for i, made in enumerate(scenes)]
        make_folder(folder)
        for name, picture in self._pictures(scenes, views, asks, lines):
            _save(picture, folder / name)
        if set(asks) & {"boxes", "caption", "scene"}:
            _write(folder / "world.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        print(f"{folder}  {self.n} scenes of world {self.seed} from {self.first}, {self.size} x {self.size}")
        return 0

    def _asks(self) -> tuple[str, ...]:
        asks = tuple(word.strip() for word in self.ask.split(",") if word.strip())
        if unknown := [word for word in asks if word not in ASKS]:
            raise UserError(f"{unknown[0]!r} cannot be asked of the world: use {', '.join(ASKS)}")
        if not asks:
            raise UserError(f"nothing is asked for: use {', '.join(ASKS)}")
        return asks

    def _said(self, made: Scene, views: Views, i: int, asks: tuple[str, ...]) -> dict[str, Any]:
        """One line of world.jsonl."""
        from diorama.worlds.captions import caption
        from diorama.worlds.scene import as_plain

        line: dict[str, Any] = {"index": made.index, "style": made.style}
        if "picture" in asks:
            line["file_name"] = f"{made.index}.png"
        if "caption" in asks:
            line["text"] = caption(made, form=self.form)
        if "boxes" in asks:
            line["boxes"] = [
                {"shape": t.shape, "colour": t.colour, "box": views.boxes[i, k].tolist()} for k, t in enumerate(made.things)
            ]
        return line | ({"scene": as_plain(made)} if "scene" in asks else {})

    def _pictures(
        self, scenes: list[Scene], views: Views, asks: tuple[str, ...], lines: list[dict[str, Any]]
    ) -> Iterator[tuple[str, Image.Image]]:
        from diorama.pictures import labelled, sheet, to_pil

        pictures, masks = to_pil(views.image, transparent=True), [_index(m) for m in views.masks]
        for made, picture, mask in zip(scenes, pictures, masks, strict=True):
            if "picture" in asks:
                yield f"{made.index}.png", picture
            if "mask" in asks:
                yield f"{made.index}-mask.png", mask
        if not set(asks) & {"picture", "mask"}:
            return
        cards = [self._card(views, i, mask, asks) for i, mask in enumerate(masks)]
        yield "sheet.png", sheet([labelled(card, line.get("text", "")) for card, line in zip(cards, lines, strict=True)], gap=8)

    def _card(self, views: Views, i: int, mask: Image.Image, asks: tuple[str, ...]) -> Image.Image:
        """Picture, boxes and mask of one scene side by side, large enough to look at."""
        from PIL import ImageDraw

        from diorama.pictures import sheet, to_pil

        scale = max(1, 192 // self.size)
        side = self.size * scale
        shown = [to_pil(views.image[i : i + 1])[0].resize((side, side), 0)] if "picture" in asks else []
        if shown and "boxes" in asks:
            draw = ImageDraw.Draw(shown[0])
            for box in views.boxes[i][views.ids[i] >= 0].tolist():
                draw.rectangle([scale * c for c in box[:2]] + [scale * c - 1 for c in box[2:]], outline="black")
        if "mask" in asks:
            shown.append(mask.convert("RGB").resize((side, side), 0))
        return sheet(shown, columns=len(shown))


def _index(masks: Any) -> Image.Image:
    """A palette picture of masks (k, h, w): 0 where the ground is, k + 1 where thing k is."""
    import numpy as np
    import torch
    from PIL import Image

    rest = 1 - masks.sum(0, keepdim=True)
    picture = Image.fromarray(torch.cat([rest, masks]).argmax(0).numpy().astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, 230, 90, 60, 70, 160, 230, 240, 200, 70, 120, 200, 120])
    return picture


def _save(picture: Image.Image, path: Path) -> None:
    from diorama.files import atomic_file

    with atomic_file(path) as temporary:
        picture.save(temporary)


def _write(path: Path, text: str) -> None:
    from diorama.files import atomic_file

    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
