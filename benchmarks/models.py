"""What the benchmarks run: the shipped default model, or one of the same sizes with untrained weights, which costs the same."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from diorama.assets import asset
from diorama.codecs.conv import ConvCodec, ConvCodecConfig
from diorama.conditions.text import SentenceEncoder
from diorama.networks.unet import UNet
from diorama.pipeline import Pipeline, load
from diorama.systems.images.flow import PRESETS, Flow

STYLES = ("noto", "blob", "fluent-flat", "fluent-3d", "noto-flag")
PROMPTS = ("a smiling cat with sunglasses", "a red apple", "a rocket on a blue ground", "a house", "two hearts", "an owl")


def flow(preset: str = "default") -> Flow:
    """The shipped model for "default" where there is one; else an untrained flow of this preset ("default": mini)."""
    if preset == "default" and (asset("default") / "model_index.json").is_file():
        return Flow.from_pretrained(asset("default"))
    torch.manual_seed(0)
    text = SentenceEncoder.from_pretrained(asset("text") if asset("text").is_dir() else asset("default") / "text")
    config = PRESETS["mini" if preset == "default" else preset]
    codec = ConvCodec(ConvCodecConfig())
    config = replace(config, channels=codec.config.latent, text_width=text.config.width, labels=len(STYLES))
    return shaken(Flow(codec, text, UNet(config), STYLES, 128)).eval()


def pipeline(preset: str = "default", device: str = "auto", dtype: str = "auto") -> Pipeline:
    """The same through the front door, which chooses device and precision for sampling."""
    if preset == "default" and (asset("default") / "model_index.json").is_file():
        return load("default", device, dtype)
    with tempfile.TemporaryDirectory() as folder:
        flow(preset).save_pretrained(Path(folder) / "model", name="benchmark")
        loaded = load(Path(folder) / "model", device, dtype)
        _ = loaded.weights  # the recipe's checksum, while the files are there
        return loaded


def shaken(system: Flow) -> Flow:
    """Small random numbers for the layers that begin at zero, so that nothing downstream multiplies only zeros."""
    with torch.no_grad():
        for parameter in system.network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.02)
    return system


def prompts(n: int) -> list[str]:
    return [PROMPTS[i % len(PROMPTS)] for i in range(n)]
