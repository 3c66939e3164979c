"""FoodFusion: captioned pictures compiled from pools, cleaned by retrieval and by masks, and a trained painter carried on with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama import cards
from diorama.codecs.conv import ConvCodec
from diorama.conditions.text import SentenceEncoder
from diorama.data.curate import CHUNK, Limits, Looker, Scorer, curate, readings, tensor
from diorama.data.source import Item, Source
from diorama.data.views import Joined, Subset
from diorama.networks.unet import UNet
from diorama.systems.base import TakePart
from diorama.systems.images.flow import Flow
from diorama.systems.understanding.clip import Clip
from diorama.types import Batch, Noise

UNLIKE = ("a drawing", "a sketch", "a logo")  # what is no realistic picture


@dataclass(eq=False)
class FoodFusion(Flow):
    """A text-to-image model whose network alone is trained on, from where it stood, for one domain (arXiv 2312.03540, sec. 4).

    The paper carries on Stable Diffusion and does not say which, nor for how long; here it is any saved flow. Styles are not
    asked for: words say all.
    """

    card: ClassVar[cards.Card] = cards.FOODFUSION

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> FoodFusion:
        return cls(part("codec", ConvCodec), part("text", SentenceEncoder), part("network", UNet), (), size)

    @classmethod
    def carry_on(cls, base: Flow) -> Self:
        """With the parts of a trained flow; they are not copied."""
        return cls(base.codec, base.text, base.network, (), base.size)

    def look(self, batch: Batch, noise: Noise) -> Tensor:
        return self.sample(batch.text, noise=noise)  # whatever the labels are


# --- its data -------------------------------------------------------------------------------------


def compiled(pools: Sequence[Source], queries: Sequence[str], clip: Clip, each: int) -> Joined:
    """The pictures of all pools that are nearest to one of the queries, `each` at most for one query and pool."""
    return Joined([retrieve(pool, queries, clip, each) for pool in pools])


def cleaned(source: Source, clip: Clip, limits: Limits, unlike: Sequence[str] = UNLIKE) -> Subset:
    """What retrieval, masks and the other filters keep of a source."""
    looker = Looker(fitting(clip, unlike), clip.image.config.size)
    return Subset(source, curate(source, looker, limits).kept.tolist())


@torch.no_grad()
def retrieve(source: Source, queries: Sequence[str], clip: Clip, each: int) -> Subset:
    """The `each` pictures nearest to each query, in their own order; what cannot be read is near to none."""
    asked = clip.encode_text(queries)
    best, places = torch.full((len(queries), 0), -1.0), torch.zeros(len(queries), 0, dtype=torch.int64)
    for first in range(0, len(source), CHUNK):
        some = {i: item for i, item in enumerate(readings(source, first), first) if isinstance(item, Item)}
        if some:
            image = tensor([item.image for item in some.values()], clip.image.config.size)
            best = torch.cat([best, (asked @ clip.encode_image(image).T).cpu()], 1)
            places = torch.cat([places, torch.tensor(list(some)).expand(len(queries), -1)], 1)
        best, order = best.topk(min(each, best.shape[1]))
        places = places.gather(1, order)
    return Subset(source, sorted(set(places.flatten().tolist())))


def fitting(clip: Clip, unlike: Sequence[str] = ()) -> Scorer:
    """How well pictures fit their words: the cosine, less that with the nearest of the sentences they should be `unlike`."""

    @torch.no_grad()
    def score(image: Tensor, texts: Sequence[str]) -> Tensor:
        seen = clip.encode_image(image)
        own = F.cosine_similarity(seen, clip.encode_text(texts))
        return own - (seen @ clip.encode_text(unlike).T).amax(1) if unlike else own

    return score
