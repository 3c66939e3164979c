"""A saved flow small enough to sample in a blink, with random weights that let the words through."""

from __future__ import annotations

from pathlib import Path

import tiny
import torch

from diorama.networks.unet import UNet, UNetConfig
from diorama.systems.images.flow import Flow


def save(folder: Path, seed: int = 0) -> Path:
    """A flow of 32 pixels and two styles, with 4 steps as its own default."""
    with torch.random.fork_rng():
        codec, text = tiny.codec(), tiny.sentence_encoder()
        torch.manual_seed(seed)
        channels, width = codec.config.latent, text.config.width
        unet = UNetConfig(
            channels=channels, widths=(32,), depth=1, attention=(True,), heads=2, text_width=width, labels=2, embedding=32
        )
        system = Flow(codec, text, UNet(unet), ("noto", "fluent 3d"), 32)
        for parameter in [*system.network.parameters(), *system.codec.parameters()]:
            if not parameter.any():  # what begins at zero would hide everything behind it
                torch.nn.init.normal_(parameter, std=0.2)
    system.save_pretrained(folder, name=folder.name, defaults={"steps": 4})
    return folder
