"""Splats into pictures, fast: tiles of pixels, each with its splats from front to back, on all cores (Kerbl et al. 2023, sec. 6).

On a processor the kernels are Numba's, with a gradient written by hand; on CUDA they are gsplat's. A splat ends where its alpha falls
below 1/255, an ellipse: it is binned to just the tiles that this meets, so what comes out is what `gaussians.dense` gives. Sums have one
order whatever the threads: a gradient is bit for bit the same.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from diorama.errors import UserError
from diorama.scenes import gaussians
from diorama.scenes.cameras import Camera
from diorama.scenes.gaussians import Gaussians, Splats, splats

try:
    from numba import njit, prange
except ImportError:
    raise UserError("pictures of Gaussians need numba: pip install 'diorama[scenes]'") from None

f32, u64 = np.float32, np.uint64  # a bare number would make Numba's sums double, or its indices signed
LEAST, MOST, DARK = f32(gaussians.LEAST), f32(gaussians.MOST), f32(gaussians.DARK)
SIDE = 16  # pixels of a tile
AREA = SIDE * SIDE
GREEN, BLUE, DEPTH, LIGHT, LAST, BEHIND = (u64(i * AREA) for i in range(1, 7))  # where a tile's planes begin; red is at 0
PATIENCE = 16  # splats between looks whether a tile is done
FAST = {"contract", "reassoc", "arcp", "nsz"}  # not nnan: a gradient that is not a number must show
NUMPYS = "numpy"  # divisions: Python's are looked at for zeros one by one, which no vector can
kernel = partial(njit, cache=True, fastmath=FAST, error_model=NUMPYS)
SLACK = 1e-3  # pixels: what rounding may take from an interval


def rasterise(found: Splats, height: int, width: int) -> Tensor:
    """(h, w, 5): red, green, blue and depth summed front to back, and the share of light that is left; differentiable."""
    if found.places.is_cuda:
        return _gsplat(found, height, width)
    out: Tensor = _Raster.apply(*found, height, width)
    return out


class Render(NamedTuple):
    """What a camera sees."""

    image: Tensor  # (4, h, w) in [-1, 1]: on white, and its alpha
    depth: Tensor  # (h, w) metres, the mean over what is seen


def render(scene: Gaussians, camera: Camera) -> Render:
    """The scene as one camera (K (3, 3)) sees it."""
    out = rasterise(splats(scene, camera), camera.height, camera.width).permute(2, 0, 1)
    left = out[4]
    alpha = 1 - left
    return Render(torch.cat([out[:3] + left, alpha[None]]) * 2 - 1, out[3] / alpha.clamp_min(1e-6))


def _gsplat(found: Splats, height: int, width: int) -> Tensor:
    try:
        from gsplat import isect_offset_encode, isect_tiles, rasterize_to_pixels
    except ImportError:
        raise UserError("pictures of Gaussians on CUDA need gsplat: pip install gsplat, or use --device cpu") from None
    places, conics, opacities, features = (part[None].contiguous() for part in found)
    across, down = -(-width // SIDE), -(-height // SIDE)
    with torch.no_grad():
        radii = reach(conics, opacities).ceil().int()
        _, numbers, order = isect_tiles(places, radii, features[..., 3].contiguous(), SIDE, across, down)
        offsets = isect_offset_encode(numbers, 1, across, down)
    colours, alphas = rasterize_to_pixels(places, conics, features, opacities, width, height, SIDE, offsets, order)
    return torch.cat([colours, 1 - alphas], -1)[0]


def reach(conics: Tensor, opacities: Tensor) -> Tensor:
    """(*, 2): how far a splat reaches to the side and down before its alpha is nothing."""
    xx, xy, yy = conics.unbind(-1)
    limit = 2 * (opacities / gaussians.LEAST).log().clamp_min(0)
    return (limit / (xx * yy - xy * xy))[..., None].mul(torch.stack([yy, xx], -1)).sqrt()


class _Raster(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, places: Tensor, conics: Tensor, opacities: Tensor, features: Tensor, height: int, width: int) -> Tensor:
        order = features[:, 3].argsort(stable=True)
        table = torch.cat([places, conics, opacities[:, None], features], 1).detach().float()[order].numpy()
        first, rows = _bin(table, height, width)
        across = -(-width // SIDE)
        tiles = _draw(table, first, rows, across, height, width)
        ctx.kept = table, first, rows, across, tiles, order
        planes = torch.from_numpy(tiles[:, : int(LAST)]).abs().unflatten(1, (5, SIDE, SIDE))
        return rearrange(planes, "(down across) c h w -> (down h) (across w) c", across=across)[:height, :width].contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        table, first, rows, across, tiles, order = ctx.kept
        (gradient,) = gradients
        beyond = -gradient.shape[1] % SIDE, -gradient.shape[0] % SIDE
        planes = F.pad(gradient.movedim(2, 0), (0, beyond[0], 0, beyond[1]))
        planes = rearrange(planes, "c (down h) (across w) -> (down across) c (h w)", h=SIDE, w=SIDE)
        light, last = torch.from_numpy(tiles[:, int(LIGHT) :]).unflatten(1, (2, AREA)).unbind(1)
        light = light.abs()
        filled = torch.cat([planes[:, :4].flatten(1), light, last, light * planes[:, 4]], 1).contiguous()
        parts = torch.from_numpy(_gather(_undraw(table, first, rows, across, filled.numpy()), rows, len(table)))
        back = torch.empty_like(parts)
        back[order] = parts
        return back[:, :2], back[:, 2:5], back[:, 5], back[:, 6:], None, None


# --- the kernels -----------------------------------------------------------------------------------
# A row of `table` is x, y, conic xx, xy, yy, opacity, red, green, blue, depth of a splat; rows go from front to back.


@kernel()
def _shape(splat):
    """Place, conic, and twice the exponent at which the splat ends: negative where it never begins."""
    limit = f32(2) * math.log(splat[5] / LEAST) if splat[5] > LEAST else f32(-1)
    return splat[0], splat[1], splat[2], splat[3], splat[4], limit


@kernel()
def _span(y, xx, xy, yy, limit, size):
    """The rows of pixels, of so many, that the ellipse meets: first, and one after the last. Of columns, with the conic turned."""
    reach = math.sqrt(limit * xx / (xx * yy - xy * xy)) + SLACK
    return max(0, math.ceil(y - reach - 0.5)), min(size, math.floor(y + reach - 0.5) + 1)


@kernel()
def _crosses(x, dy, xx, xy, yy, limit, left, right):
    """Whether the ellipse meets this piece of a line across the picture; turned by 90 degrees, of one down it."""
    inside = limit * xx - (xx * yy - xy * xy) * dy * dy
    half, middle = math.sqrt(max(inside, inside * 0)), x * xx + xy * dy
    return inside >= 0 and middle + half >= left * xx and middle - half <= right * xx


@kernel()
def _meets(x, y, xx, xy, yy, limit, left, top, right, bottom):
    """Whether the ellipse meets this rectangle: its middle is inside, or it meets a side."""
    return (
        (left <= x <= right and top <= y <= bottom)
        or _crosses(x, y - top, xx, xy, yy, limit, left, right)
        or _crosses(x, y - bottom, xx, xy, yy, limit, left, right)
        or _crosses(y, x - left, yy, xy, xx, limit, top, bottom)
        or _crosses(y, x - right, yy, xy, xx, limit, top, bottom)
    )


@kernel()
def _bin(table, height, width):
    """Lists of splats by tile, from front to back: tile t has rows[first[t] : first[t + 1]]."""
    across, down = -(-width // SIDE), -(-height // SIDE)
    first = np.zeros(across * down + 1, np.int64)
    free, rows = first[:-1].copy(), np.empty(0, np.int32)
    for filling in (False, True):  # counted first, then filled in
        if filling:
            first = np.cumsum(first)
            free, rows = first[:-1].copy(), np.empty(first[-1], np.int32)
        for k in range(len(table)):
            x, y, xx, xy, yy, limit = _shape(table[k])
            if not limit > 0:
                continue
            top, bottom = _span(y, xx, xy, yy, limit, height)
            left, right = _span(x, yy, xy, xx, limit, width)
            if top >= bottom or left >= right:
                continue
            for i in range(top // SIDE, (bottom - 1) // SIDE + 1):
                for j in range(left // SIDE, (right - 1) // SIDE + 1):
                    if _meets(x, y, xx, xy, yy, limit, j * SIDE, i * SIDE, (j + 1) * SIDE, (i + 1) * SIDE):
                        t = i * across + j
                        if filling:
                            rows[free[t]] = k
                            free[t] += 1
                        else:
                            first[t + 1] += 1
    return first, rows


@kernel()
def _bell(x):
    """exp(x) for x in -8 .. 0 to 3e-7: the eighth power of a short series, which, unlike a call of exp, runs in vectors."""
    r, series = x * f32(0.125), f32(1 / 5040)
    for factor in (f32(1 / 720), f32(1 / 120), f32(1 / 24), f32(1 / 6), f32(1 / 2), f32(1), f32(1)):
        series = series * r + factor
    series *= series
    series *= series
    return series * series


@kernel()
def _stamp(splat, x, y, top, bottom, mark, tile):
    """One splat, its place counted from the tile's corner, onto rows of the tile. A pixel that is done has its light negative."""
    xx, xy, yy, opacity, r, g, b, d = splat[2], splat[3], splat[4], splat[5], splat[6], splat[7], splat[8], splat[9]
    for i in range(u64(top), u64(bottom)):
        dy = y - (f32(i) + f32(0.5))
        linear, constant = xy * dy, f32(0.5) * yy * dy * dy
        for j in range(u64(SIDE)):
            p = u64(i) * u64(SIDE) + j
            dx = x - (f32(j) + f32(0.5))
            alpha = min(opacity * _bell(max(-(f32(0.5) * xx * dx + linear) * dx - constant, f32(-8))), MOST)
            given, last = tile[LIGHT + p], tile[LAST + p]
            rest = given * (f32(1) - alpha)
            seen, fits = alpha >= LEAST, rest >= DARK
            weight = alpha * given if seen & fits else f32(0)
            tile[p] += weight * r
            tile[GREEN + p] += weight * g
            tile[BLUE + p] += weight * b
            tile[DEPTH + p] += weight * d
            tile[LIGHT + p] = (rest if fits else -abs(given)) if seen else given
            tile[LAST + p] = mark if seen & fits else last


@kernel(parallel=True)
def _draw(table, first, rows, across, high, wide):
    """Tiles (t, 6 AREA) of red, green, blue, depth, light that is left, and how many entries of its list a pixel has used."""
    tiles = np.zeros((len(first) - 1, 6 * AREA), np.float32)
    for t in prange(len(tiles)):
        top, left, tile = t // across * SIDE, t % across * SIDE, tiles[t]
        tile[LIGHT:LAST].reshape(SIDE, SIDE)[: high - top, : wide - left] = 1  # beyond the picture there is none
        for n in range(first[t + 1] - first[t]):
            if n % PATIENCE == PATIENCE - 1 and tile[LIGHT:LAST].max() <= 0:
                break
            splat = table[rows[first[t] + n]]
            x, y, xx, xy, yy, limit = _shape(splat)
            begin, end = _span(y - top, xx, xy, yy, limit, SIDE)
            _stamp(splat, x - left, y - top, begin, end, f32(n + 1), tile)
    return tiles


@kernel()
def _unstamp(splat, x, y, top, bottom, n, tile, part):
    """What one splat on rows of a tile gives to the gradient of its row of `table`, into `part`.

    The tile holds the gradient, the light that the splat behind this one was given, how many entries each pixel has used, and the
    gradient's product with all that lies behind; light and product are taken one splat to the front.
    """
    xx, xy, yy, opacity, r, g, b, d = splat[2], splat[3], splat[4], splat[5], splat[6], splat[7], splat[8], splat[9]
    of_x = of_y = of_xx = of_xy = of_yy = of_opacity = of_r = of_g = of_b = of_d = f32(0)
    for i in range(u64(top), u64(bottom)):
        dy = y - (f32(i) + f32(0.5))
        linear, constant = xy * dy, f32(0.5) * yy * dy * dy
        for j in range(u64(SIDE)):
            p = u64(i) * u64(SIDE) + j
            dx = x - (f32(j) + f32(0.5))
            bell = _bell(max(-(f32(0.5) * xx * dx + linear) * dx - constant, f32(-8)))
            g0, g1, g2, g3 = tile[p], tile[GREEN + p], tile[BLUE + p], tile[DEPTH + p]
            light, last, behind = tile[LIGHT + p], tile[LAST + p], tile[BEHIND + p]
            alpha = min(opacity * bell, MOST)
            alpha = alpha if (alpha >= LEAST) & (n < last) else f32(0)
            clear = f32(1) / (f32(1) - alpha)
            given = light * clear
            worth, weight = r * g0 + g * g1 + b * g2 + d * g3, alpha * given
            slope = given * worth - behind * clear
            slope = slope if (alpha > f32(0)) & (alpha < MOST) else f32(0)
            pull = alpha * slope
            tile[LIGHT + p] = given
            tile[BEHIND + p] = behind + weight * worth
            of_r += weight * g0
            of_g += weight * g1
            of_b += weight * g2
            of_d += weight * g3
            of_opacity += bell * slope
            of_x += pull * dx
            of_y += pull * dy
            of_xx += pull * dx * dx
            of_xy += pull * dx * dy
            of_yy += pull * dy * dy
    part[0], part[1] = -(xx * of_x + xy * of_y), -(xy * of_x + yy * of_y)
    part[2], part[3], part[4] = -f32(0.5) * of_xx, -of_xy, -f32(0.5) * of_yy
    part[5], part[6], part[7], part[8], part[9] = of_opacity, of_r, of_g, of_b, of_d


@kernel(parallel=True)
def _undraw(table, first, rows, across, tiles):
    """What each entry of `rows` gives to the gradient of its row of `table`, from back to front: (len(rows), 10)."""
    parts = np.zeros((len(rows), 10), np.float32)
    for t in prange(len(tiles)):
        top, left, tile = t // across * SIDE, t % across * SIDE, tiles[t].copy()
        for n in range(int(tile[LAST:BEHIND].max()) - 1, -1, -1):
            splat = table[rows[first[t] + n]]
            x, y, xx, xy, yy, limit = _shape(splat)
            begin, end = _span(y - top, xx, xy, yy, limit, SIDE)
            _unstamp(splat, x - left, y - top, begin, end, f32(n), tile, parts[first[t] + n])
    return parts


@kernel()
def _gather(parts, rows, n):
    """The gradient of the table: the parts of each splat, summed in the order of the tiles."""
    total = np.zeros((n, parts.shape[1]), parts.dtype)
    for place in range(len(rows)):
        for c in range(parts.shape[1]):
            total[rows[place], c] += parts[place, c]
    return total
