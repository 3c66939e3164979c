"""Draws docs/pictures/dreamfusion.png: what became of three sentences, once around, and what `denoising` makes of the first.

python docs/dreamfusion.py
"""

from __future__ import annotations

from pathlib import Path

from diorama.foundations import foundation
from diorama.guidance.distill import denoising
from diorama.pictures import labelled, sheet, to_pil
from diorama.systems.images.latent import LatentPainter
from diorama.systems.scenes.dreamfusion import PRESETS, DreamFusion, How

OUT = Path(__file__).parent / "pictures" / "dreamfusion.png"
VIEWS, SIZE = 8, 96
PROMPTS = ("a red cube with a face", "a blue cone with a face", "a yellow star with a face")


def main() -> None:
    painter = foundation("world-views")
    assert isinstance(painter, LatentPainter)
    rows = {prompt: DreamFusion.over(prompt, painter, PRESETS["nano"]).dream() for prompt in PROMPTS}
    rows["with the painter's slope"] = DreamFusion.over(PROMPTS[0], painter, PRESETS["nano"], How(pull=denoising)).dream()
    pictures = [
        labelled(picture, words if i == 0 else "")
        for words, system in rows.items()
        for i, picture in enumerate(to_pil(system.turned(VIEWS, SIZE)))
    ]
    sheet(pictures, columns=VIEWS).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
