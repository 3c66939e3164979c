"""Clips of a trained model, frame by frame, above those of its picture model alone, which knows no time, from the same noise.

python docs/video_ldm.py MODEL              docs/pictures/video-ldm.png: of captions of the world, below its own clips
python docs/video_ldm.py MODEL SENTENCE...  docs/pictures/video-sentences.png: of these
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image

from diorama.adapters.temporal import apart
from diorama.files import atomic_file
from diorama.foundations.data import items_of
from diorama.foundations.registry import find
from diorama.pictures import sheet, to_pil
from diorama.systems.base import load_system
from diorama.systems.video.video_ldm import VideoLDM
from diorama.types import Noise

PICTURES = Path(__file__).parent / "pictures"
CLIPS, SEED, SIDE = 2, 77, 64


def main(folder: str, *sentences: str) -> None:
    model = load_system(folder)
    assert isinstance(model, VideoLDM), "give a model that `diorama train video-ldm` made"
    real = None if sentences else items_of(find("world-video"), SEED).batch(0, CLIPS)
    words, still = real.text if real else sentences, VideoLDM.on(model.painter)
    made = [system.eval().sample(words, frames=model.frames, noise=Noise(range(len(words)))) for system in (model, still)]
    rows = torch.stack([real.image, *made] if real else made, 1).flatten(0, 1)  # (clips * rows of each, 4, t, h, w)
    picture = PICTURES / ("video-ldm.png" if real else "video-sentences.png")
    frames = [frame.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX) for frame in to_pil(apart(rows))]
    with atomic_file(picture) as new:
        sheet(frames, columns=rows.shape[2]).quantize(256, Image.Quantize.MAXCOVERAGE).save(new, optimize=True)
    print(*words, picture, sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
