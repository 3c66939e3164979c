"""Draw docs/pictures/segment.png, or measure a model.

python docs/segment.py                        writes the picture: what a click may mean
python docs/segment.py --measure MODEL        the mean IoU of its masks with whole things of the world
python docs/segment.py --measure MODEL FOLDER and with instances in a folder of NAME.png|webp and NAME.labels.png, or with
                                              held-out pictures with alpha, laid over each other
"""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from diorama.conditions.clicks import somewhere
from diorama.critics.statistics import mean
from diorama.data.batches import Batches, on_white
from diorama.data.collage import collage
from diorama.foundations.measures import overlap
from diorama.foundations.registry import find
from diorama.models import locate
from diorama.pictures import sheet, to_pil
from diorama.sources import Data
from diorama.systems.understanding.everything import pointed
from diorama.systems.understanding.sam import Sam
from diorama.types import Noise, Score
from diorama.worlds.parts import Masked
from diorama.worlds.scene import Rules
from diorama.worlds.source import ENDLESS, World

PICTURE = Path(__file__).parent / "pictures" / "segment.png"
RULES = Rules(least=2, overlap=1.0, sizes=("large",), textures=("striped", "dotted", "checked"))
WAYS = ("one click, surest mask", "one click, best of three", "a box, surest mask")
BLUE = torch.tensor([-0.8, -0.3, 0.9, 1.0])[:, None, None]
SMALLEST = 20  # pixels of an instance that is asked for


def draw(n: int = 4, size: int = 96) -> None:
    """Pictures of the world with a click, and beside each the things that it may mean."""
    batch = Masked(World(4, ENDLESS, size, RULES)).batch(0, 80)
    assert batch.masks is not None
    truths = batch.masks >= 0.5
    clicks = somewhere(truths.sum(1) == 3, Noise(range(len(batch))).uniform())
    rows: list[Image.Image] = []
    for image, truth, click in zip(batch.image, truths, clicks, strict=True):
        x, y = click.long().tolist()
        held = truth[truth[:, y, x]]
        if len(held) == 3 and len(rows) < n:
            tinted = [torch.where(mask, BLUE, 0.4 * image + 0.6) for mask in held[held.flatten(1).sum(1).argsort()]]
            cells = to_pil(torch.stack([image, *tinted]))
            ImageDraw.Draw(cells[0]).ellipse([x - 3, y - 3, x + 3, y + 3], fill="white", outline="black")
            rows.append(sheet(cells, columns=4))
    sheet(rows, columns=2, gap=12).quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=8).save(PICTURE, optimize=True)
    print(f"{PICTURE}  {PICTURE.stat().st_size / 1000:.0f} kB")


def measure(model: str, folder: str = "") -> None:
    """Every thing is asked for by a click in its middle and by its box."""
    sam = Sam.from_pretrained(locate(model))
    for way, score in overlap(replace(find("world-sam"), size=sam.size), sam).items():
        say("the world", way, score)
    if folder:
        squares = [square for pair in labelled(Path(folder)) for square in cut(*pair, sam.size // 2)]
        squares = squares or collages(Path(folder), sam.size)
        found = torch.cat([pointed(sam, *square) for square in squares])
        for way, values in zip(WAYS, found.T, strict=True):
            say(Path(folder).name, way, mean(values, "IoU", True))


def labelled(folder: Path) -> list[tuple[Tensor, Tensor]]:
    """The pictures there, and the masks of their instances."""
    pairs = []
    for path in sorted(folder.glob("*.labels.png")):
        picture = next(
            p for p in folder.glob(f"{path.name.removesuffix('.labels.png')}.*") if p.suffix in (".png", ".webp") and p != path
        )
        image = torch.from_numpy(on_white(Image.open(picture).convert("RGBA"))).float() / 127.5 - 1
        label = torch.from_numpy(np.array(Image.open(path))).long()
        pairs.append((image, label == torch.arange(1, int(label.max()) + 1)[:, None, None]))
    return pairs


def collages(folder: Path, size: int) -> list[tuple[Tensor, Tensor]]:
    """Pictures that training with seed 0 holds out, on grounds and over each other as it lays them, and their masks."""
    data = Data(path=folder, size=size)
    _, held = data.split(data.open(0), 0)
    batch = Batches(held, size, len(held), 0, ordered=True, limit=0)(0)
    image, masks = collage(batch.image, Noise(range(len(batch))))
    pairs = zip(image, masks >= 0.5, strict=True)
    return [(one, large) for one, truth in pairs if len(large := truth[truth.flatten(1).sum(1) >= SMALLEST])]


def cut(image: Tensor, masks: Tensor, side: int) -> list[tuple[Tensor, Tensor]]:
    """A picture as squares, for instances that are small in it, and what of those is in each."""
    squares = []
    for top, left in product(*(range(0, n, side) for n in image.shape[1:])):
        part, inside = (x[..., top : top + side, left : left + side] for x in (image, masks))
        large = inside.flatten(1).sum(1) >= SMALLEST
        if large.any():
            squares.append((part, inside[large]))
    return squares


def say(name: str, way: str, score: Score) -> None:
    print(f"{name:12} {way:30} {score.value:.3f} ± {score.stderr:.3f}  n = {score.n}")


if __name__ == "__main__":
    measure(*sys.argv[2:]) if sys.argv[1:2] == ["--measure"] else draw()
