"""Draws docs/pictures/gaussian-splatting.png: unseen views of a scene of the world, as they are, as fitted, and the fitted depth.

python docs/gaussian_splatting.py
"""

from __future__ import annotations

from pathlib import Path

import torch

from diorama.claims.gaussian_splatting import TEXTURED, grown, views
from diorama.pictures import labelled, sheet, to_pil

OUT = Path(__file__).parent / "pictures" / "gaussian-splatting.png"
SEED, STEPS, SHOWN, LARGE = 1, 800, (0, 2, 4, 6), 160


def main() -> None:
    seen, unseen = views(SEED, TEXTURED)
    system = grown(SEED, seen, STEPS)
    renders = [system.render(unseen.camera.rows(i)) for i in SHOWN]
    depth = torch.stack([r.depth for r in renders])
    alpha = torch.stack([r.image[3:] for r in renders])
    near = torch.where(alpha > 0, 3.4 - 2 * depth[:, None], 1.0).clamp(-1, 1).expand(-1, 3, -1, -1)
    rows = {
        "as it is": unseen.images[list(SHOWN)],
        f"{len(system.cloud)} Gaussians": torch.stack([r.image for r in renders]),
        "their depth": torch.cat([near, alpha], 1),
    }
    pictures = [
        labelled(picture.resize((LARGE, LARGE), 0), words if i == 0 else "")
        for words, images in rows.items()
        for i, picture in enumerate(to_pil(images))
    ]
    sheet(pictures, columns=len(SHOWN)).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
