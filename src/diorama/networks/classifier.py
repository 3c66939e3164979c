"""A convolutional network that names what it sees, for any number of spatial axes and at any noise level."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from diorama.networks.layers import Downsample, GroupNorm, LevelEmbedding, ResidualBlock, convolution, fold
from diorama.parts import Part


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Shape of the network: the way down of a U-Net, one level per width."""

    channels: int = 3
    labels: int = 5
    patch: int = 2  # pixels along each axis that enter as channels
    widths: tuple[int, ...] = (32, 64, 128)
    depth: int = 1  # residual blocks per level
    embedding: int = 0  # width of the noise level's embedding; 0 where it only ever sees clean data
    levels: float = 100.0  # scale of c_noise: a flow's time, 0 to 1, asks for ten times that of EDM's logarithm
    dropout: float = 0.1
    axes: int = 2


class ClassifierNetwork(Part):
    """x (b, channels, *spatial), c_noise (b,) -> logits (b, labels), from features (b, d), each where it is strongest.

    The mean over all places drowns a small thing in its ground: after as many steps it named half as many shapes of the world.
    """

    Config = ClassifierConfig

    def __init__(self, config: ClassifierConfig):
        super().__init__()
        self.config, widths = config, config.widths
        self.level = LevelEmbedding(config.embedding, scale=config.levels) if config.embedding else None
        self.inlet = convolution(config.axes, config.channels * config.patch**config.axes, widths[0])
        self.layers = nn.ModuleList()
        for level, width in enumerate(widths):
            if level:
                self.layers.append(Downsample(config.axes, widths[level - 1], width))
            self.layers += [ResidualBlock(config.axes, width, width, config.embedding or None) for _ in range(config.depth)]
        self.norm = GroupNorm(widths[-1])
        self.head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(widths[-1], config.labels))

    def maps(self, x: Tensor, c_noise: Tensor | None = None) -> list[Tensor]:
        """What it sees at every place after each of its blocks, from the finest on: (b, width, *spatial) each."""
        embedding, seen = None if self.level is None or c_noise is None else self.level(c_noise), []
        x = self.inlet(fold(x, self.config.patch))
        for layer in self.layers:
            if isinstance(layer, ResidualBlock):
                seen.append(x := layer(x, embedding))
            else:
                x = layer(x)
        return seen

    def features(self, x: Tensor, c_noise: Tensor | None = None) -> Tensor:
        """(b, widths[-1]); `c_noise` is read where the network knows of noise."""
        return F.silu(self.norm(self.maps(x, c_noise)[-1])).flatten(2).amax(-1)

    def forward(self, x: Tensor, c_noise: Tensor | None = None) -> Tensor:
        return self.head(self.features(x, c_noise))
