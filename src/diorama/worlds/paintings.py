"""Paintings that could explain patches: fitted shapes in every texture and style, and which of them comes closest to the pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diorama.worlds.fitting import cut, levenberg
from diorama.worlds.patches import HUED, hues, spread
from diorama.worlds.render import PALETTE, Poses, paint, window
from diorama.worlds.scene import STYLES

# poses around one, in pixels at 64 and (the last) fifths of a radian: the one itself, then quasi-random (Roberts' sequence)
NEARBY = torch.stack([(torch.arange(40) * a % 1 + 0.5) % 1 - 0.5 for a in (0.8567, 0.7339, 0.6287, 0.5386)], -1) * 1.4
NEARBY[0] = 0
AT_ONCE = 8192  # things painted together


class Paintings:
    """The patches of a few pictures beside the paintings that could explain them, seen through a blur of so many pixels (sigma)."""

    def __init__(self, rgb: Tensor, owner: Tensor, colours: Tensor, masks: Tensor, blur: float = 0.0):
        self.rgb, self.owner, self.colours, self.masks = rgb, owner, colours, masks  # (b, 3, s, s), (m,), (m,), (m, s, s)
        self.size = rgb.shape[-1]
        self.wide = window(self.size)
        line, steps = torch.arange(self.size) + 0.5, torch.arange(self.wide)
        self.left, self.top = (
            torch.floor((masks.any(axis) * line).sum(1) / masks.any(axis).sum(1)).long() - self.wide // 2 for axis in (1, 2)
        )
        hued = hues(rgb.permute(0, 2, 3, 1))[1] > HUED  # specks too: a hole shows a little of what is behind it
        self.taken = spread(hued)
        rest = [spread(masks[(owner == i) & (torch.arange(len(masks)) != k)]).any(0) for k, i in enumerate(owner.tolist())]
        self.free = ~(torch.stack(rest) | (hued[owner] & ~masks))  # (m, s, s) where no other thing covers it
        self.target = self._window(rgb, owner)  # (m, 3, w, w)
        self.weight = self._window(self.free.float()[:, None], torch.arange(len(masks)))[:, 0]  # 0 where there is no picture too
        bare = self._window((~self.taken).float()[:, None], owner)  # (m, 1, w, w)
        self.behind = (self.target * bare).sum((2, 3)) / bare.sum((2, 3)).clamp(min=1)  # (m, 3) the ground near each thing
        self.smear = torch.softmax(-((steps - steps[:, None]) ** 2) / (2 * blur**2), -1) if blur else None  # (w, w)

    def _window(self, pictures: Tensor, which: Tensor, rows: Tensor | None = None) -> Tensor:
        """Pictures cut at the windows of these patches, of all without `rows`."""
        left, top = (self.left, self.top) if rows is None else (self.left[rows], self.top[rows])
        return cut(pictures, which, left, top, self.wide, 0.0)

    def paint(
        self, patch: Tensor, kind: Tensor, texture: Tensor, style: Tensor, pose: Tensor, soft: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Things (m,) over their grounds, (m, 3, w, w), and their coverage (m, w, w)."""
        waves = torch.zeros(len(patch), 2, 4)
        x, y, radius, angle = pose.unbind(1)
        rgb = PALETTE[self.colours[patch]]
        poses = Poses(kind, x, y, radius, angle, torch.zeros_like(x), texture, style, rgb, waves)
        rgb, cover = paint(poses, self.left[patch], self.top[patch], self.wide, self.size, soft)
        painting = torch.lerp(self.behind[patch][:, :, None, None], rgb, cover[:, None])
        return painting if self.smear is None else self.smear @ painting @ self.smear.mT, cover

    def residual(
        self, patch: Tensor, kind: Tensor, texture: Tensor, style: Tensor, soft: bool = True
    ) -> Callable[[Tensor], Tensor]:
        def of(pose: Tensor) -> Tensor:
            painting, _ = self.paint(patch, kind, texture, style, pose, soft)
            return ((painting - self.target[patch]) * self.weight[patch][:, None]).flatten(1)

        return of

    def choose(self, shapes: Tensor, poses: Tensor, textures: Tensor, styles: Tensor) -> tuple[list[int], tuple[Tensor, ...]]:
        """The style of every picture, and of every patch its (kind, texture, pose), among these textures (t,) and styles (s,)."""
        m, j, t = *shapes.shape, len(textures)
        grid = torch.cartesian_prod(torch.arange(m), torch.arange(j), textures, styles)
        first = torch.cat([self._first(shapes, poses, rows) for rows in grid.split(AT_ONCE)])
        table = first.reshape(m, j * t, len(styles))
        looks, options = min(2, len(styles)), min(4, j * t)
        likely = self._by_picture(table.amin(1)).topk(looks, largest=False)[1]  # (b, looks)
        chosen = []
        for n in range(looks):
            now = likely[self.owner, n]
            top = table[torch.arange(m), :, now].topk(options, largest=False)[1]  # (m, options)
            chosen.append(torch.stack([torch.arange(m)[:, None].expand_as(top), top, styles[now][:, None].expand_as(top)], -1))
        patch, option, style = torch.stack(chosen, 1).flatten(0, 2).T  # (m * looks * options,)
        kind, texture = shapes[patch, option // t], textures[option % t]
        pose, error = levenberg(poses[patch, option // t], self.residual(patch, kind, texture, style), 4)
        pose, error = self._harden(patch, kind, texture, style, pose, error)
        error, best = error.reshape(m, looks, options).min(2)
        taken = self._by_picture(error).argmin(1)
        at = taken[self.owner]
        row = (torch.arange(m) * looks + at) * options + best[torch.arange(m), at]
        return styles[likely.gather(1, taken[:, None])[:, 0]].tolist(), (kind[row], texture[row], pose[row])

    def _first(self, shapes: Tensor, poses: Tensor, rows: Tensor) -> Tensor:
        """The squared errors (n,) of rows (n, 4) of patch, rank of its shape, texture and style, at the poses fitted before."""
        patch, rank, texture, style = rows.T
        return self.residual(patch, shapes[patch, rank], texture, style)(poses[patch, rank]).square().sum(1)

    def _harden(
        self, patch: Tensor, kind: Tensor, texture: Tensor, style: Tensor, pose: Tensor, error: Tensor
    ) -> tuple[Tensor, Tensor]:
        """In the pixel style no slope leads to the exact pose: the best of some poses nearby."""
        k = (style == STYLES.index("pixel")).nonzero()[:, 0]
        if not len(k):
            return pose, error
        n, pose, error = len(NEARBY), pose.clone(), error.clone()
        rows = k.repeat_interleave(n)
        hard = self.residual(patch[rows], kind[rows], texture[rows], style[rows], soft=False)
        for scale in (1.0, 0.4):
            around = NEARBY * torch.tensor([1.0, 1.0, 1.0, 0.2]) * scale * self.size / 64
            many = (pose[k][:, None] + around).flatten(0, 1)
            least, place = hard(many).square().sum(1).reshape(-1, n).min(1)
            pose[k], error[k] = many.reshape(-1, n, 4)[torch.arange(len(k)), place], least
        return pose, error

    def _by_picture(self, error: Tensor) -> Tensor:
        """Errors of patches (m, s), summed to those of pictures (b, s)."""
        return torch.zeros(len(self.rgb), error.shape[1]).index_add(0, self.owner, error)

    def judge(
        self, rows: Tensor, kind: Tensor, texture: Tensor, style: Tensor, pose: Tensor
    ) -> tuple[list[float], list[float], tuple[tuple[int, int], ...]]:
        """Of one picture's patches: each painting's root mean square error, the share of it that can be seen, and who is behind whom."""
        painting, cover = self.paint(rows, kind, texture, style, pose)
        own = self._window(self.masks.float()[:, None], rows, rows)[:, 0]
        near = spread(torch.maximum(cover, own)) * self.weight[rows]
        off = ((painting - self.target[rows]).square().mean(1) * near).sum((1, 2)).div(near.sum((1, 2)).clamp(min=1)).sqrt()
        seen = (cover * self.weight[rows]).sum((1, 2)) / cover.sum((1, 2)).clamp(min=1)
        return off.tolist(), seen.tolist(), self._behind(rows, cover)

    def _behind(self, rows: Tensor, cover: Tensor) -> tuple[tuple[int, int], ...]:
        """(i, j) where the whole of i reaches under the patch of j, and j's hardly under i's."""
        owned = [self._window(self.masks.float()[:, None], rows, row.expand(len(rows)))[:, 0] for row in rows]
        under = torch.stack([(cover[n] * masks).sum((1, 2)) / cover[n].sum() for n, masks in enumerate(owned)])
        n = range(len(rows))
        return tuple((a, b) for a in n for b in n if a != b and under[a, b] > 0.02 and under[a, b] > 2 * under[b, a])
