"""How near is a picture to the one it should be? Pixels, structure, and the features of any network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama.critics.statistics import alike, per_sample
from diorama.errors import UserError

WINDOW = torch.exp(-(torch.arange(-5.0, 6.0) ** 2) / (2 * 1.5**2))  # 11 pixels wide (Wang et al. 2004, sec. III.C)
HALF = len(WINDOW) // 2
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights, from the full size down (Wang et al. 2003)
PEAK = 2.0  # pictures are in [-1, 1]


@per_sample("dB", higher_is_better=True, features="pixels")
def psnr(image: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio. Both (b, c, h, w) in [-1, 1] -> (b,); infinite where they are equal."""
    alike(image, reference, "pictures")
    return 10 * torch.log10(PEAK**2 / (image - reference).square().flatten(1).mean(1))


@per_sample("SSIM", higher_is_better=True, features="pixels")
def ssim(image: Tensor, reference: Tensor, exact: bool = True) -> Tensor:
    """Structural similarity, 1 where equal (Wang et al. 2004, eq. 13). Both (b, c, h, w) in [-1, 1], 6 pixels or more -> (b,).

    Edges are reflected, so every pixel counts as much as any other, in small pictures too. A loss need not be `exact`: it is then as
    precise as its input, within 1e-4 in float32, and many times faster.
    """
    similarity, _ = _structure(image, reference, exact)
    return similarity.flatten(1).mean(1).to(image)


@per_sample("MS-SSIM", higher_is_better=True, features="pixels")
def ms_ssim(image: Tensor, reference: Tensor, scales: Sequence[float] = SCALES) -> Tensor:
    """Structure at five sizes and brightness at the smallest (Wang et al. 2003, eq. 7). Both (b, c, h, w) in [-1, 1] -> (b,).

    Five `scales` need 176 pixels; each that is left out halves that.
    """
    least = len(WINDOW) * 2 ** (len(scales) - 1)
    if min(image.shape[-2:]) < least:
        raise UserError(f"{image.shape[-1]} x {image.shape[-2]} pixels are too few for {len(scales)} scales: use {least} or more")
    product = image.new_ones(len(image))
    for i, weight in enumerate(scales):
        similarity, contrast = _structure(image, reference)
        whole = similarity if i == len(scales) - 1 else contrast[..., HALF:-HALF, HALF:-HALF]
        product = product * whole.flatten(1).mean(1).relu().to(image) ** weight
        image, reference = F.avg_pool2d(image, 2), F.avg_pool2d(reference, 2)
    return product


def _structure(x: Tensor, y: Tensor, exact: bool = True) -> tuple[Tensor, Tensor]:
    """Similarity at each place, and its factor without brightness: (b, c, h, w) each."""
    alike(x, y, "pictures")
    if min(x.shape[-2:]) <= HALF:
        raise UserError(f"{x.shape[-1]} x {x.shape[-2]} pixels are too few for SSIM: use {HALF + 1} or more")
    if exact:  # a variance is a small difference of large numbers
        x, y = x.double(), y.double()
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    mean_x, mean_y, xx, yy, xy = (_blur(part) for part in (x, y, x * x, y * y, x * y))
    var_x, var_y = (xx - mean_x**2).clamp_min(0), (yy - mean_y**2).clamp_min(0)
    contrast = (2 * (xy - mean_x * mean_y) + c2) / (var_x + var_y + c2)
    return (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1) * contrast, contrast


def _blur(x: Tensor) -> Tensor:
    window = (WINDOW / WINDOW.sum()).to(x).expand(x.shape[1], 1, 1, -1)
    x = F.pad(x, (HALF, HALF, HALF, HALF), mode="reflect")
    return F.conv2d(F.conv2d(x, window, groups=x.shape[1]), window.mT, groups=x.shape[1])


@per_sample("perceptual distance", higher_is_better=False)
def perceptual(levels: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
    """LPIPS without learned weights: two pyramids of features, each level (b, c, h, w) -> (b,), 0 to 4 per level.

    At each place the squared distance of the channels' directions, averaged over places, summed over levels (Zhang et al. 2018, eq. 1).
    """
    total = torch.zeros(len(levels[0]), device=levels[0].device)
    for x, y in zip(levels, reference, strict=True):
        alike(x, y, "features")
        total = total + (F.normalize(x, dim=1) - F.normalize(y, dim=1)).square().sum(1).flatten(1).mean(1)
    return total
