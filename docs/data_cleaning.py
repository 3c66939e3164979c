"""Emoji with injected defects, for docs/data-cleaning.md: `python docs/data_cleaning.py EMOJI OUT`.

EMOJI is a folder of captioned pictures with alpha whose RGB lies on white; OUT/metadata.jsonl says of each picture what was done to
it (`defect`). `python docs/data_cleaning.py --found OUT CLEANED` then tells how many of each `diorama data clean` found.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from pathlib import Path

from PIL import Image

from diorama.data import open_data
from diorama.data.colours import COLOURS

N = 1200
SHARES = {
    "wrong caption": 0.05,
    "file name": 0.02,
    "no caption": 0.01,
    "boilerplate": 0.02,
    "same caption": 0.04,
    "no text": 0.01,
    "copy": 0.05,
    "tiny": 0.02,
    "cut short": 0.02,
    "recoloured": 0.10,  # of those whose captions name a colour
}
CAPTIONS = {
    "file name": ("IMG_2041", "cat_final.png", "DSC00123.JPG", "20190412_133702"),
    "no caption": ("",),
    "boilerplate": ("stock vector royalty-free", "Image may contain: one thing", "click to enlarge"),
    "same caption": ("an emoji from our collection",),
    "no text": ("#### 8 ####", "<div class=x>12</div>", "$$ 1/2 $$"),
}


def make(emoji: str, out: Path) -> None:
    source, rng = open_data(emoji, on_white=True), random.Random(3)
    items = [source.read(i) for i in rng.sample(range(len(source)), N)]
    out.mkdir(parents=True)
    with open(out / "metadata.jsonl", "w", encoding="utf-8") as table:
        for k, item in enumerate(items):
            image, text, name = item.image, item.text, f"{k:04d}.png"
            defect = next((d for d, share in SHARES.items() if rng.random() < share), "")
            if defect == "recoloured" and not set(COLOURS) & set(text.split()):
                defect = ""
            text = rng.choice(CAPTIONS.get(defect, (text,)))
            if defect == "wrong caption":
                text = items[(k + N // 3) % N].text
            elif defect == "copy":
                other, side = items[rng.randrange(max(1, k))], rng.choice((96, 112, 144))
                image, text = other.image.resize((side, side)), other.text
            elif defect == "tiny":
                image = Image.new("RGBA", image.size, (255, 255, 255, 0))
                image.paste(item.image.resize((10, 10)), (rng.randrange(110), rng.randrange(110)))
            elif defect == "recoloured":
                image = turned(image)
            image.save(out / name)
            if defect == "cut short":
                (out / name).write_bytes((out / name).read_bytes()[:300])
            table.write(json.dumps({"file_name": name, "text": text, "style": item.label, "defect": defect}) + "\n")


def turned(image: Image.Image) -> Image.Image:
    """Every hue on the other side of the wheel."""
    hue, saturation, value = image.convert("RGB").convert("HSV").split()
    other = Image.merge("HSV", (hue.point([(h + 128) % 256 for h in range(256)]), saturation, value)).convert("RGB")
    other.putalpha(image.getchannel("A"))
    return other


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def found(dirty: Path, cleaned: Path) -> None:
    gone = {line["key"]: line["reason"] for line in lines(cleaned / "dropped.jsonl")}
    rows = lines(dirty / "metadata.jsonl")
    counts = Counter((row["defect"] or "none", gone.get(row["file_name"], "kept")) for row in rows)
    for (defect, reason), count in sorted(counts.items()):
        print(f"{defect:<14} {reason:<12} {count:>5}")


if __name__ == "__main__":
    if sys.argv[1] == "--found":
        found(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        make(sys.argv[1], Path(sys.argv[2]))
