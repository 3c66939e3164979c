"""Do the frames of a clip belong together, and does it move as it should?

A frozen clip is perfectly consistent: read every number here beside `motion`. Whole clips are compared with real ones by
`frechet` and `kernel_distance` over the features of a network that sees time (Unterthiner et al. 2018).
Clips are (b, c, t, h, w). A flow (b, 2, t - 1, h, w) says by how many pixels (to the right, down) what stands at each place of
a frame has moved in the next.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from diorama.critics.statistics import alike, per_sample
from diorama.errors import UserError


def warp(image: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """What stands where the flow points: image (n, c, h, w), flow (n, 2, h, w) -> (n, c, h, w), and where it points inside, (n, h, w)."""
    h, w = image.shape[-2:]
    y, x = torch.meshgrid(torch.arange(h, device=flow.device), torch.arange(w, device=flow.device), indexing="ij")
    place = torch.stack([x, y]) + flow
    last = place.new_tensor([w - 1, h - 1])[:, None, None]
    inside = ((place >= 0) & (place <= last)).all(1)
    grid = rearrange(2 * place / last.clamp_min(1) - 1, "n two h w -> n h w two")
    return F.grid_sample(image, grid, align_corners=True, padding_mode="border"), inside


@per_sample("squared pixel value", higher_is_better=False, features="pixels")
def warp_error(clip: Tensor, flow: Tensor, visible: Tensor | None = None) -> Tensor:
    """Mean squared difference of each frame and the next one brought back along the flow (Lai et al. 2018) -> (b,).

    Over the places whose target lies in the picture and which are `visible` (b, t - 1, h, w) in both frames.
    """
    b, t = len(clip), _frames(clip, flow)
    now, then = (rearrange(part, "b c t h w -> (b t) c h w") for part in (clip[:, :, :-1], clip[:, :, 1:]))
    back, inside = warp(then, rearrange(flow, "b two t h w -> (b t) two h w"))
    error = (now - back).square().mean(1).unflatten(0, (b, t))
    return _mean(error, inside.unflatten(0, (b, t)) if visible is None else inside.unflatten(0, (b, t)) & visible)


@per_sample("pixels", higher_is_better=False)
def end_point_error(flow: Tensor, truth: Tensor, visible: Tensor | None = None) -> Tensor:
    """Mean distance of where a flow points and where it should, both (b, 2, ..., h, w) -> (b,) (Baker et al. 2011)."""
    alike(flow, truth, "flows")
    distance = (flow - truth).norm(dim=1)
    return _mean(distance, torch.ones_like(distance, dtype=torch.bool) if visible is None else visible)


@per_sample("pixels a frame", higher_is_better=True)
def motion(flow: Tensor) -> Tensor:
    """How far things move: the mean length of a flow (b, 2, ..., h, w) -> (b,). Neither good nor bad in itself."""
    return flow.norm(dim=1).flatten(1).mean(1)


@per_sample("cosine", higher_is_better=True)
def frame_similarity(features: Tensor) -> Tensor:
    """Mean cosine of the features of neighbouring frames, (b, t, d) -> (b,) (Esser et al. 2023)."""
    if features.shape[1] < 2:
        raise UserError("a clip of 1 frame has no neighbouring frames: use 2 or more")
    return F.cosine_similarity(features[:, 1:], features[:, :-1], dim=-1).mean(1)


@per_sample("pixel value", higher_is_better=False, features="pixels")
def flicker(clip: Tensor, still: Tensor) -> Tensor:
    """Mean |x_(t-1) - 2 x_t + x_(t+1)| where nothing moves, `still` (b, t - 2, h, w), -> (b,): what goes on there is not of the scene."""
    if clip.shape[2] < 3:
        raise UserError(f"a clip of {clip.shape[2]} frames cannot flicker: use 3 or more")
    return _mean(clip.diff(n=2, dim=2).abs().mean(1), still)


@per_sample("share of frames", higher_is_better=True)
def persistence(kinds: Tensor, places: Tensor, most: float) -> Tensor:
    """The share of the later frames that show what the first does, where it could have gone since the frame before -> (b,).

    kinds (b, t, k) int64 are what is read of k things, below 0 where one is not there; places (b, t, k, 2) where they are, and
    `most` is how far a thing may go between two frames. Of a first frame that shows nothing, nothing persists.
    """
    there = kinds >= 0
    same = (kinds[:, 1:] == kinds[:, :1]).all(-1) & there[:, :1].any(-1)
    near = (places.diff(dim=1).norm(dim=-1) <= most) & there[:, :-1]
    return (same & (near | ~there[:, 1:]).all(-1)).double().mean(1)


def steps(kinds: Tensor, places: Tensor) -> Tensor:
    """How far things go from frame to frame, on average over those seen in both, of kinds and places as above: (b,), NaN where none is."""
    both = (kinds[:, 1:] >= 0) & (kinds[:, :-1] >= 0)
    return _mean(places.diff(dim=1).norm(dim=-1).nan_to_num(), both)


def _frames(clip: Tensor, flow: Tensor) -> int:
    """How many pairs of frames there are. UserError where the flow is not between them."""
    right = (len(clip), 2, clip.shape[2] - 1, *clip.shape[-2:])
    if flow.shape != right:
        sizes = " x ".join(map(str, flow.shape)), " x ".join(map(str, right))
        raise UserError(f"a flow of {sizes[0]} does not lie between the frames of this clip: give one of {sizes[1]}")
    return right[2]


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """Mean over all but the first axis where the mask is true; NaN where it is true nowhere."""
    alike(values, where, "places and what is visible of them")
    return (values * where).flatten(1).sum(1) / where.flatten(1).sum(1)
