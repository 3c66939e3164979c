"""`diorama segment`: what is meant by a point or a box in a picture, or everything there is."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from diorama.apps.flags import flag
from diorama.apps.output import find_model, make_folder, use_all_cores
from diorama.errors import UserError
from diorama.files import atomic_folder, write_json

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

    from diorama.networks.prompts import Prompts

MODEL, INDEX = "world-sam", "masks.json"
FINEST = 256  # points along a side: more of them is memory without more masks
TINTS = (
    (230, 60, 60),
    (60, 120, 240),
    (60, 180, 80),
    (240, 180, 40),
    (170, 80, 220),
    (40, 190, 200),
    (240, 120, 180),
    (150, 110, 70),
)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Masks of what points or boxes mean in a picture, or of everything in it.

    Points, and one box with them, mean one thing together; several boxes are a thing each. A single point can mean several
    things: it gives three masks, the surest first.
    """

    picture: Annotated[tyro.conf.Positional[str], flag("PICTURE")]
    """The picture."""
    point: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], flag("X,Y")] = ()
    """A pixel of the thing, counted from the upper left; may be given again."""
    away: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], flag("X,Y")] = ()
    """A pixel that is not of the thing."""
    box: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], flag("X0,Y0,X1,Y1")] = ()
    """A box around a thing: left, top, right, bottom."""
    everything: Annotated[bool, flag()] = False
    """Ask at a grid of points, and keep what is sure, stable and found once."""
    side: int = 32
    """Points along a side of that grid."""
    sure: float = 0.88
    """Of everything, keep masks expected to fit (IoU) by more."""
    stable: float = 0.95
    """Of everything, keep masks that change less than this with where their logits are cut."""
    model: Annotated[str, flag("NAME|DIR")] = MODEL
    """A saved sam: the name of a shipped model or a folder."""
    out: Annotated[str | None, flag("DIR", "-o")] = None
    """The folder for the masks, 0.png and so on, masks.json and overlay.png; PICTURE-masks where not given."""

    def run(self) -> int:
        self._check()
        try:
            folder = find_model(self.model)
        except UserError:
            if self.model != MODEL:
                raise
            raise UserError(
                f"no segmenter is here: run `diorama foundations {MODEL}` once (hours of two cores), or give yours with --model"
            ) from None
        from diorama.data.pictures import decode  # torch, from here on
        from diorama.data.source import Unreadable
        from diorama.systems.base import load_system
        from diorama.systems.understanding.sam import Sam

        use_all_cores()
        try:
            picture = decode(Path(self.picture), self.picture)
        except Unreadable as error:
            raise UserError(f"{error}: give a picture") from None
        sam = load_system(folder)
        if not isinstance(sam, Sam):
            raise UserError(f"{self.model} is a saved {sam.card.slug}, which makes no masks: give a sam")
        print(self._write(picture, self._found(sam, picture)) / "overlay.png")
        return 0

    def _check(self) -> None:
        prompts = bool(self.point or self.away or self.box)
        if prompts == self.everything:
            raise UserError("tell what is meant by --point X,Y or --box X0,Y0,X1,Y1, or ask for --everything, not both")
        if len(self.box) > 1 and (self.point or self.away):
            raise UserError(
                f"{len(self.box)} boxes are a thing each, and points with them mean none of them: give one box or no point"
            )
        if self.away and not (self.point or self.box):
            raise UserError("--away alone says nothing of what is meant: give a --point or a --box too")
        if not 1 <= self.side <= FINEST:
            raise UserError(f"side {self.side} is not allowed: use 1 to {FINEST}")

    def _found(self, sam: Any, picture: Image) -> list[dict[str, Any]]:
        """What is written of each mask, and the mask itself."""
        import torch

        from diorama.data.batches import on_white
        from diorama.systems.understanding.everything import everything, stability

        image = torch.from_numpy(on_white(picture)).float() / 127.5 - 1
        if self.everything:
            found = everything(sam, image, self.side, self.sure, self.stable)
            if not len(found.masks):
                less = "a model as small as world-sam is rarely so sure: try --sure 0.7 --stable 0.7"
                print(f"nothing is expected to fit by {self.sure:g} and stable by {self.stable:g}; {less}", file=sys.stderr)
            told: list[dict[str, Any]] = [{"points": [point]} for point in found.points.tolist()]
            return [_row(*row) for row in zip(found.masks, found.iou, found.stability, told, strict=True)]
        prompts, said = self._prompts(picture.width, picture.height)
        masks = sam.see(image).masks(prompts)
        most = 1 if self.box else masks.iou.shape[1]  # a box means one thing
        logits, iou = masks.logits[:, :most].flatten(0, 1), masks.iou[:, :most].flatten()
        told = [words for words in said for _ in range(most)]
        return [_row(*row) for row in zip(logits > 0, iou, stability(logits), told, strict=True)]

    def _prompts(self, w: int, h: int) -> tuple[Prompts, list[dict[str, Any]]]:
        """What is meant, a row for each thing, and for each the words for it."""
        import torch

        from diorama.networks.prompts import AWAY, MEANT, Prompts

        boxes = [_numbers("box", text, 4, w, h) for text in self.box]
        if flat := [text for text, box in zip(self.box, boxes, strict=True) if box[0] >= box[2] or box[1] >= box[3]]:
            raise UserError(f"box {flat[0]} has no inside: give left, top, right, bottom")
        points = [_numbers("point", text, 2, w, h) for text in (*self.point, *self.away)]
        if not points:
            return Prompts.box(torch.tensor(boxes)), [{"box": box} for box in boxes]
        says = torch.tensor([[MEANT] * len(self.point) + [AWAY] * len(self.away)])
        places, said = torch.tensor([points]) + 0.5, {"points": points, "labels": says[0].tolist()}  # a pixel's middle
        if boxes:
            return Prompts.box(torch.tensor(boxes)).clicked(places, says), [{"box": boxes[0], **said}]
        return Prompts.at(places, says), [said]

    def _write(self, picture: Image, rows: list[dict[str, Any]]) -> Path:
        """The folder with all of it; one that an earlier run wrote is replaced."""
        from PIL import Image

        from diorama.data.runs import runs

        folder = Path(self.out or f"{Path(self.picture).stem}-masks")
        make_folder(folder.parent)
        overlay, written = picture.convert("RGB"), []
        with atomic_folder(folder, replaces=INDEX) as new:
            for i, row in enumerate(rows):
                mask: np.ndarray = row.pop("mask")
                flat = Image.fromarray(mask.astype("uint8") * 255)
                flat.save(new / f"{i}.png")
                if i == 0 or self.everything or len(self.box) > 1:  # of three meanings of one point, the surest
                    tint = Image.new("RGB", picture.size, TINTS[i % len(TINTS)])
                    overlay.paste(Image.blend(overlay, tint, 0.5), mask=flat)
                written.append({"file": f"{i}.png", **row, "segmentation": runs(mask)})
            overlay.save(new / "overlay.png")
            image = {"file_name": Path(self.picture).name, "width": picture.width, "height": picture.height}
            write_json(new / INDEX, {"image": image, "annotations": written})
        for row in written:
            sure = f"expected IoU {row['predicted_iou']:.2f}, stability {row['stability_score']:.2f}"
            print(f"{folder / row['file']}  {sure}, {row['area']} pixels")
        return folder


def _row(mask: Tensor, iou: Tensor, stability: Tensor, said: dict[str, Any]) -> dict[str, Any]:
    """The names are those of the published masks (SA-1B), the box COCO's: left, top, width, height."""
    array = mask.cpu().numpy()
    ys, xs = array.nonzero()
    box = [int(xs.min()), int(ys.min()), int(xs.max() - xs.min()) + 1, int(ys.max() - ys.min()) + 1] if len(xs) else [0, 0, 0, 0]
    told = {"predicted_iou": round(float(iou), 4), "stability_score": round(float(stability), 4), "prompt": said}
    return {"bbox": box, "area": len(xs), **told, "mask": array}


def _numbers(name: str, text: str, n: int, w: int, h: int) -> list[float]:
    """ "12,40" as numbers that lie in the picture."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != n:
        raise UserError(
            f"{name} {text!r} cannot be read: give {n} numbers with commas, such as {'12,40' if n == 2 else '8,8,40,52'}"
        )
    reach = (w, h) if n == 2 else (w + 1, h + 1)
    if not all(0 <= value < reach[i % 2] for i, value in enumerate(values)):
        raise UserError(f"{name} {text} lies outside the picture of {w} x {h} pixels")
    return values


__all__ = ["Segment"]
