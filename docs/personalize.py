"""Draw pictures/personalize.png: `python docs/personalize.py PHOTOS "a sks teddy bear" ADAPTER ADAPTER_WITHOUT_THE_CLASS`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import diorama

SIDE, GAP, LINE, EACH = 64, 2, 15, 3  # pixels, and pictures of a sentence


def main(photos: str, subject: str, *adapters: str) -> None:
    kind = f"a {subject.split(' ', 2)[2]}"
    prompts = [subject, f"{subject} on a green ground", subject.replace("a ", "a small ", 1), f"{subject} and a red apple", kind]
    given = [on_white(path) for path in sorted(Path(photos).glob("*.png"))]
    rows: dict[str, list[tuple[str, Sequence[Image.Image]]]] = {"given": [("", given)]}
    for words, worn in zip(
        ("the model", "with the adapter", "learned without the class"), ([], *([a] for a in adapters)), strict=False
    ):
        model = diorama.load("default", "cpu", "float32", adapters=worn)
        rows[words] = [(prompt, model.sample(prompt, n=EACH)) for prompt in prompts]
    step = EACH * (SIDE + GAP) + 5 * GAP
    paper = Image.new("RGB", (len(prompts) * step, len(rows) * (2 * LINE + SIDE + 2 * GAP)), "white")
    draw, font = ImageDraw.Draw(paper), ImageFont.load_default(11)
    for row, (words, groups) in enumerate(rows.items()):
        top = row * (2 * LINE + SIDE + 2 * GAP)
        draw.text((GAP, top), words, "black", font)
        for column, (prompt, pictures) in enumerate(groups):
            draw.text((column * step + GAP, top + LINE), prompt, "grey", font)
            for i, picture in enumerate(pictures):
                small = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
                paper.paste(small, (column * step + i * (SIDE + GAP), top + 2 * LINE))
    paper.save(Path(__file__).parent / "pictures" / "personalize.png", optimize=True)


def on_white(path: Path) -> Image.Image:
    picture = Image.open(path).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


if __name__ == "__main__":
    main(*sys.argv[1:])
