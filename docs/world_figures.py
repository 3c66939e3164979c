"""Draws docs/pictures/world-figures.png: `python docs/world_figures.py`."""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from diorama.pictures import sheet
from diorama.worlds.actions import ACTIONS, act
from diorama.worlds.dressing import draw
from diorama.worlds.figures import figure
from diorama.worlds.portraits import film, part_maps, room_cards, wardrobe
from diorama.worlds.rooms import room

PICTURE = Path(__file__).parent / "pictures" / "world-figures.png"
SIZE, COLUMNS = 96, 10
AZIMUTH = {"walk": 60, "wave": 0, "jump": 60, "sit": 60, "turn": 0}


def contact_sheet() -> Image.Image:
    """Five actions, the part maps of the first, garments of two figures off, flat and on, and rooms with their ways."""
    cells = [
        picture for i, action in enumerate(ACTIONS) for picture in film(figure(7, i), action, COLUMNS, SIZE, AZIMUTH[action])
    ]
    walk = act(figure(7, 0), "walk", COLUMNS, rate=8)
    cells += [picture.convert("RGB") for picture in part_maps(draw([figure(7, 0)] * COLUMNS, walk.posed, SIZE, AZIMUTH["walk"]))]
    cells += [picture for i in (0, 3) for picture in wardrobe(figure(7, i), SIZE)]
    cells += room_cards([room(7, i, blocked=True) for i in range(COLUMNS)], SIZE)
    return sheet(cells, columns=COLUMNS)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # there are none but --help
    contact_sheet().quantize(128).save(PICTURE, optimize=True)
    print(f"{PICTURE}  {PICTURE.stat().st_size / 1000:.0f} kB")
