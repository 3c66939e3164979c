"""CLIP guidance: a denoiser and an eye for noisy pictures that shares a space with sentences in, a denoiser out."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from diorama.guidance.classifier import classifier
from diorama.guidance.scale import Scale
from diorama.types import Denoiser

Eye = Callable[[Tensor, Tensor], Tensor]  # x (b, ...), sigma (b,) -> vectors of length 1 (b, d), differentiable in x


def contrastive(denoiser: Denoiser, see: Eye, text: Tensor, scale: Scale) -> Denoiser:
    """D + scale sigma^2 grad_x see(x; sigma) . text: scale 0 leaves it alone (Nichol et al. 2022, sec. 2.4, in these coordinates).

    `text` (b, d) is a sentence's vector times CLIP's inverse temperature: then `see . text` is, but for a constant, the log
    probability of the sentence, and this is classifier guidance with as many classes as there are sentences.
    """

    def similarity(x: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        return (see(x, sigma) * text).sum(-1)

    return classifier(denoiser, similarity, text, scale)
