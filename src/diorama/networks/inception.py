"""Inception-v3 as the FID literature has it: TensorFlow's graph of 2015-12-05, under the names that pytorch-fid gave its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diorama.networks.layers import Kernel

SIDE = 299
Step = tuple[int, *tuple[Kernel, ...]]  # a width, and a kernel; of several, all see the same and stand side by side
Branches = Mapping[str, Sequence[Step]]

ROW, COLUMN = (1, 7), (7, 1)
CROSS: Step = (384, (1, 3), (3, 1))
DOUBLE: Sequence[Step] = [(64, 1), (96, 3), (96, 3)]


def _fives(pool: int) -> Branches:
    return {"1x1": [(64, 1)], "5x5": [(48, 1), (64, 5)], "3x3dbl": DOUBLE, "_pool": [(pool, 1)]}


def _sevens(w: int) -> Branches:
    twice: Sequence[Step] = [(w, 1), (w, COLUMN), (w, ROW), (w, COLUMN), (192, ROW)]
    return {"1x1": [(192, 1)], "7x7": [(w, 1), (w, ROW), (192, COLUMN)], "7x7dbl": twice, "_pool": [(192, 1)]}


CROSSES: Branches = {"1x1": [(320, 1)], "3x3": [(384, 1), CROSS], "3x3dbl": [(448, 1), (384, 3), CROSS], "_pool": [(192, 1)]}
BLOCKS: Mapping[str, Branches] = {  # one without a pooled branch halves the size, and keeps what it pools as it is
    "Mixed_5b": _fives(32),
    "Mixed_5c": _fives(64),
    "Mixed_5d": _fives(64),
    "Mixed_6a": {"3x3": [(384, 3)], "3x3dbl": DOUBLE},
    "Mixed_6b": _sevens(128),
    "Mixed_6c": _sevens(160),
    "Mixed_6d": _sevens(160),
    "Mixed_6e": _sevens(192),
    "Mixed_7a": {"3x3": [(192, 1), (320, 3)], "7x7x3": [(192, 1), (192, ROW), (192, COLUMN), (192, 3)]},
    "Mixed_7b": CROSSES,
    "Mixed_7c": CROSSES,
}


class Convolution(nn.Module):
    """A convolution, its norm and a rectifier."""

    def __init__(self, c_in: int, c_out: int, kernel: Kernel, stride: int = 1, pads: bool = True):
        super().__init__()
        high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
        around = (high // 2, wide // 2) if pads else 0
        self.conv = nn.Conv2d(c_in, c_out, (high, wide), stride, around, bias=False)
        self.bn = nn.BatchNorm2d(c_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Block(nn.Module):
    """Branches of convolutions side by side: (b, c, h, w) -> (b, `width`, h, w), or half of both sides.

    What is pooled are the three by three places around each, of which those beyond the edge count for nothing.
    """

    def __init__(self, c_in: int, branches: Branches, by_most: bool):
        super().__init__()
        self.halves, self.by_most = "_pool" not in branches, by_most
        self.width = c_in if self.halves else 0
        self.branches: list[list[list[str]]] = []  # of each its steps, of each step the names of its convolutions
        for branch, steps in branches.items():
            self.branches.append([])
            width = c_in
            for i, (c_out, *kernels) in enumerate(steps, 1):
                number, last = f"_{i}" * (len(steps) > 1), i == len(steps)
                names = [f"branch{branch}{number}{letter}" for letter in ("ab" if len(kernels) > 1 else [""])]
                for name, kernel in zip(names, kernels, strict=True):
                    self.add_module(name, Convolution(width, c_out, kernel, *((2, False) if self.halves and last else ())))
                self.branches[-1].append(names)
                width = c_out * len(kernels)
            self.width += width

    def forward(self, x: Tensor) -> Tensor:
        pooled, seen = self._pooled(x), []
        for steps in self.branches:
            y = pooled if steps == [["branch_pool"]] else x
            for names in steps:
                y = torch.cat([self.get_submodule(name)(y) for name in names], 1)
            seen.append(y)
        return torch.cat([*seen, pooled] if self.halves else seen, 1)

    def _pooled(self, x: Tensor) -> Tensor:
        if self.halves:
            return F.max_pool2d(x, 3, 2)
        return F.max_pool2d(x, 3, 1, 1) if self.by_most else F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class FidInception(nn.Module):
    """The network of Szegedy et al. 2016 whose features Heusel et al. 2017 compare. Pictures are (b, c >= 3, h, w) in [-1, 1].

    It is no other Inception-v3: it tells 1008 classes apart, averages without the padding, and its last block pools by the most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, 2, False)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, 1, False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, 1, False)
        width = 192
        for name, branches in BLOCKS.items():
            self.add_module(name, block := Block(width, branches, by_most=name == "Mixed_7c"))
            width = block.width
        self.fc = nn.Linear(width, 1008)
        self.requires_grad_(False).eval()

    def resized(self, image: Tensor) -> Tensor:
        """Any size -> (b, c, 299, 299), sides stretched, as pytorch-fid does: bilinear between centres of pixels, none averaged.

        TensorFlow 1 and torch-fidelity after it measure from corners instead, which moves a picture by up to half a pixel.
        """
        return F.interpolate(image.to(self.fc.weight.device), (SIDE, SIDE), mode="bilinear", align_corners=False)

    def maps(self, image: Tensor) -> list[Tensor]:
        """What it sees at every place after each of its blocks: (b, width, h, w) each, from 35 x 35 places to 8 x 8."""
        return list(self._blocks(image))

    def features(self, image: Tensor) -> Tensor:
        """(b, 2048): the means over all places of what the last block sees."""
        *_, last = self._blocks(image)
        return last.mean((2, 3))

    def forward(self, image: Tensor) -> Tensor:
        """Logits (b, 1008)."""
        return self.fc(self.features(image))

    def _blocks(self, image: Tensor) -> Iterator[Tensor]:
        x = self.resized(image[:, :3]).contiguous(memory_format=torch.channels_last)  # in which a processor is a third quicker
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        for name in BLOCKS:
            yield (x := cast(Block, self.get_submodule(name))(x))
