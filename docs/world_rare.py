"""Draw docs/pictures/world-rare.png, or measure how the oracle reads the rare textures and styles that docs/world.md shows.

python docs/world_rare.py                 writes the picture
python docs/world_rare.py --measure 32 48  reads 48 scenes of each back, at 32 px
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from diorama.pictures import labelled, sheet, to_pil
from diorama.worlds.oracle import Found, Oracle
from diorama.worlds.render import pictures
from diorama.worlds.scene import ALL_STYLES, ALL_TEXTURES, RARE_STYLES, RARE_TEXTURES, Rules, Scene, Thing, scene

PICTURE = Path(__file__).parent / "pictures" / "world-rare.png"
SIDE = 96  # pixels of a card on the sheet


def draw() -> None:
    """Each rare texture at 64 and 32 px; each rare style on a plain and a wavy heart, and in one scene on two grounds."""
    cards = [_card(_alone(texture, "flat", "circle", "blue"), 64, texture) for texture in RARE_TEXTURES]
    cards += [_card(_alone(texture, "flat", "square", "green"), 32, "at 32 px") for texture in RARE_TEXTURES]
    for style in RARE_STYLES:
        cards += [_card(_alone(word, style, "heart", "pink"), 64, f"{style}, {word}") for word in ("plain", "wavy")]
    for style in RARE_STYLES:
        rules = Rules(styles=(style,), subjects=0.0, least=3, grounds=("plain",))
        cards += [_card(scene(3, 2, replace(rules, tones=(tone,))), SIDE) for tone in ("white", "black")]
    paper = sheet(cards, columns=8, gap=4)
    paper.crop((0, 0, paper.width, paper.height - 16)).quantize(128).save(PICTURE, optimize=True)
    print(f"{PICTURE}  {PICTURE.stat().st_size / 1000:.0f} kB")


def _alone(texture: str, style: str, shape: str, colour: str) -> Scene:
    """One large thing in the middle."""
    common = Rules(sizes=("large",), tones=("white",), grounds=("plain",), most=1, subjects=0.0, turn=0.0)
    made = scene(0, 0, replace(common, textures=(texture,), styles=(style,), shapes=(shape,), colours=(colour,)))
    return replace(made, things=(replace(made.things[0], x=0.5, y=0.5),))


def _card(made: Scene, size: int, label: str = "") -> Image.Image:
    picture = to_pil(pictures([made], size))[0]
    if len(made.things) == 1:
        picture = picture.crop((size // 4, size // 4, size * 3 // 4, size * 3 // 4))
    return labelled(picture.resize((SIDE, SIDE), Image.Resampling.NEAREST), label).crop((0, 0, SIDE, SIDE + 16))


def measure(size: int, n: int) -> None:
    """The share of things, or of pictures, of which the oracle that tries everything reads what is drawn; unreadable ones count."""
    oracle, start = Oracle(textures=ALL_TEXTURES, styles=ALL_STYLES), time.process_time()
    kinds = [Rules(subjects=0.0, styles=("flat",), textures=(texture,)) for texture in RARE_TEXTURES]
    kinds += [Rules(subjects=0.0, styles=(style,)) for style in RARE_STYLES]
    for rules in kinds:
        scenes = [scene(11, 1000 + i, rules) for i in range(n)]
        readings = oracle.read(pictures(scenes, size))
        pairs = [(t, _nearest(t, r.named)) for s, r in zip(scenes, readings, strict=True) for t in s.named]
        texture = sum(found is not None and found.texture == thing.texture for thing, found in pairs)
        style = sum(r.style == s.style for s, r in zip(scenes, readings, strict=True))
        word = rules.styles[0] if len(rules.textures) > 1 else rules.textures[0]
        print(f"{word:>12}: texture of {texture} things of {len(pairs)}, style of {style} scenes of {n}")
    print(f"{(time.process_time() - start) / n / len(kinds) * 1000:.0f} ms a picture")


def _nearest(thing: Thing, found: Sequence[Found]) -> Found | None:
    return min(found, key=lambda other: abs(other.x - thing.x) + abs(other.y - thing.y), default=None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", type=int, nargs=2, metavar=("SIZE", "SCENES"))
    arguments = parser.parse_args()
    measure(*arguments.measure) if arguments.measure else draw()
