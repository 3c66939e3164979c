"""Does the picture show what was asked for? Retrieval in the space of an independent image-text scorer."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama.critics.statistics import alike, need, per_sample, share
from diorama.errors import UserError
from diorama.types import Score

SAME = 1e-2  # sentences whose unit vectors are nearer than this are one sentence (half-precision caches move them by 1e-4)


def ranks(pictures: Tensor, candidates: Tensor) -> Tensor:
    """How many wrong texts fit each picture at least as well as the right one: (n,) int64, 0 is right.

    pictures (n, d) of length 1; candidates (n, m, d) of length 1, the right text first of its m. A tie counts against:
    a scorer that gives all the same answer is never right. Raises UserError where one is no number.
    """
    if candidates.shape[1] < 2:
        raise UserError(f"{candidates.shape[1]} candidate texts leave nothing to choose: use 2 or more, usually 100")
    similarity = torch.einsum("n d, n m d -> n m", pictures, candidates)
    need(similarity, 0, "pictures")
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


@per_sample("cosine", higher_is_better=True)
def cosine(pictures: Tensor, texts: Tensor) -> Tensor:
    """How well each picture fits its own text, both (n, d) -> (n,) in -1 to 1. Of frames and their clip's text it is CLIPSIM."""
    alike(pictures, texts, "vectors")
    return F.cosine_similarity(pictures, texts, dim=-1)


@per_sample("100 cosines", higher_is_better=True)
def clip_score(pictures: Tensor, texts: Tensor) -> Tensor:
    """A hundred times the cosine, 0 where it is negative (Hessel et al. 2021, sec. 3, whose weight is 2.5), both (n, d) -> (n,)."""
    return 100 * cosine(pictures, texts).clamp_min(0)


def preference(chosen: Tensor, rejected: Tensor) -> Score:
    """The share of pairs in which a reward puts the one people chose higher, both (n,); a tie is half right."""
    alike(chosen, rejected, "rewards")
    need(torch.stack([chosen, rejected], 1), 1, "pairs")
    return share((chosen > rejected) + (chosen == rejected) / 2)


def accuracy(predicted: Tensor, truth: Tensor) -> Score:
    """The share of equal labels, both (n,)."""
    return share(predicted == truth)


# --- the loss that trains such a scorer ------------------------------------------------------------


def same(pooled: Tensor) -> Tensor:
    """Which sentences of a batch are one sentence: (b, d) unit vectors -> (b, b) bool."""
    p = pooled.float()
    return torch.cdist(p, p, compute_mode="donot_use_mm_for_euclid_dist") < SAME


def info_nce(logits: Tensor, same: Tensor) -> Tensor:
    """Symmetric cross-entropy of the diagonal (van den Oord et al. 2018; Radford et al. 2021, fig. 3): (b, b) -> (b,).

    Pairs with the same sentence as the row's own are no negatives, so they stand in neither denominator.
    """
    diagonal = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits = logits.float().masked_fill(same & ~diagonal, -math.inf)
    right = torch.arange(len(logits), device=logits.device)
    of_pictures = F.cross_entropy(logits, right, reduction="none")
    of_sentences = F.cross_entropy(logits.T, right, reduction="none")
    return (of_pictures + of_sentences) / 2
