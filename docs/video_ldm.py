"""Draw docs/pictures/video-ldm.png: clips of a trained model, frame by frame, below what is real and above what knows no time.

    python docs/video_ldm.py MODEL

For each of two captions three rows: a real clip, the model's, and that of its picture model alone from the same noise.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image

from diorama.adapters.temporal import apart
from diorama.files import atomic_file
from diorama.foundations.registry import find
from diorama.foundations.world import world_of
from diorama.pictures import sheet, to_pil
from diorama.systems.base import load_system
from diorama.systems.video.video_ldm import VideoLDM
from diorama.types import Noise

PICTURE = Path(__file__).parent / "pictures" / "video-ldm.png"
CLIPS, SEED, SIDE = 2, 77, 64


def main(folder: str) -> None:
    model = load_system(folder)
    assert isinstance(model, VideoLDM), "give a model that `diorama train video-ldm` made"
    real, still = world_of(find("world-video"), SEED).batch(0, CLIPS), VideoLDM.on(model.painter)
    made = [system.eval().sample(real.text, noise=Noise(range(CLIPS))) for system in (model, still)]
    rows = torch.stack([real.image, *made], 1).flatten(0, 1)  # (clips * 3, 4, t, h, w)
    frames = [frame.resize((SIDE, SIDE), Image.Resampling.NEAREST) for frame in to_pil(apart(rows))]
    with atomic_file(PICTURE) as new:
        sheet(frames, columns=rows.shape[2]).save(new)
    print(*real.text, PICTURE, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1])
