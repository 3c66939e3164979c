"""The words of the world: what its attributes, numbers and relations are called, with their synonyms."""

from __future__ import annotations

from diorama.worlds.scene import COLOURS

SYNONYMS: dict[str, dict[str, tuple[str, ...]]] = {
    "shape": {
        "circle": ("circle", "disc", "dot"),
        "square": ("square", "box"),
        "triangle": ("triangle",),
        "star": ("star",),
        "heart": ("heart",),
        "cross": ("cross", "plus"),
        "ring": ("ring", "hoop"),
        "crescent": ("crescent", "moon"),
    },
    "colour": {**{name: (name,) for name in COLOURS}, "cyan": ("cyan", "turquoise"), "purple": ("purple", "violet")},
    "size": {"small": ("small", "little", "tiny"), "medium": ("medium", "medium-sized"), "large": ("large", "big")},
    "texture": {
        "plain": ("plain",),
        "striped": ("striped", "stripy"),
        "dotted": ("dotted", "spotted"),
        "checked": ("checked", "chequered"),
        "diagonal": ("diagonal", "slanted"),
        "zigzag": ("zigzag", "jagged"),
        "wavy": ("wavy", "rippled"),
        "bricked": ("bricked", "brickwork"),
        "concentric": ("concentric", "ringed"),
        "toothed": ("toothed", "serrated"),
        "spiral": ("spiral", "swirled"),
        "halved": ("halved", "split"),
    },
    "style": {
        "flat": ("a flat picture of", "flat art of"),
        "outlined": ("an outlined drawing of", "a cartoon of"),
        "shaded": ("a shaded picture of", "a glossy rendering of"),
        "pixel": ("pixel art of", "a pixelated picture of"),
        "sketch": ("a sketch of", "a pencil sketch of"),
        "hatched": ("a hatched drawing of", "an engraving of"),
        "dithered": ("a dithered picture of", "dithered art of"),
        "neon": ("a neon sign of", "neon art of"),
        "pointillist": ("a pointillist painting of", "pointillist art of"),
    },
    "relation": {
        "left": ("left of", "to the left of"),
        "right": ("right of", "to the right of"),
        "above": ("above", "over"),
        "below": ("below", "under"),
        "behind": ("behind", "partly hidden by"),
        "front": ("in front of",),
    },
    "tone": {"white": ("white",), "grey": ("grey", "gray"), "black": ("black",), "cream": ("cream", "beige")},
}
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}
ANYTHING = ("object", "thing")
PLURALS = {"box": "boxes", "cross": "crosses", "plus": "pluses"}


def plural(noun: str) -> str:
    return PLURALS.get(noun, noun + "s")
