"""Does the picture show what was asked for? Retrieval in the space of an independent image-text scorer."""

from __future__ import annotations

import torch
from torch import Tensor

from diorama.critics.statistics import need, share
from diorama.errors import UserError
from diorama.types import Score


def ranks(pictures: Tensor, candidates: Tensor) -> Tensor:
    """How many wrong texts fit each picture at least as well as the right one: (n,) int64, 0 is right.

    pictures (n, d) of length 1; candidates (n, m, d) of length 1, the right text first of its m. A tie counts against:
    a scorer that gives all the same answer is never right.
    """
    if candidates.shape[1] < 2:
        raise UserError(f"{candidates.shape[1]} candidate texts leave nothing to choose: use 2 or more, usually 100")
    similarity = torch.einsum("n d, n m d -> n m", pictures, candidates)
    return (similarity[:, 1:] >= similarity[:, :1]).sum(1)


def top(ranks: Tensor, k: int = 1) -> Score:
    """The share of pictures whose right text is among the first k, from `ranks`. Chance is k / m."""
    return share(ranks < k)


def r_precision(similarity: Tensor, relevant: Tensor) -> Score:
    """The share of relevant texts among each picture's first R, where R of its texts are relevant (Xu et al. 2018, sec. 4).

    similarity (n, m); relevant (n, m) bool. The error is that of the mean over pictures. With R = 1 it is top-1 accuracy.
    """
    n, r = need(similarity, 2, "pictures"), relevant.sum(1)
    if not (r > 0).all():
        raise UserError("a picture has no relevant text: leave it out")
    order = similarity.argsort(dim=1, descending=True, stable=True)
    found = relevant.gather(1, order) & (torch.arange(similarity.shape[1], device=r.device) < r[:, None])
    precision = found.sum(1).double() / r
    return Score(float(precision.mean()), float(precision.std() / n**0.5), "share", True, n)


def accuracy(predicted: Tensor, truth: Tensor) -> Score:
    """The share of equal labels, both (n,)."""
    return share(predicted == truth)
