"""A feature network that looks at pictures, and every measure that what it saw allows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from diorama.apps.output import steps_bar
from diorama.critics.contrastive import clip_score, ranks, top
from diorama.critics.fidelity import psnr, ssim
from diorama.critics.frechet import frechet, kernel_distance
from diorama.critics.precision import density_coverage, diversity, precision_recall
from diorama.data import Item, Source, Unreadable
from diorama.data.batches import fit, on_white
from diorama.data.folder import METADATA, open_metadata
from diorama.errors import UserError
from diorama.models import index_of, known_as, weights_hash
from diorama.networks.precision import ground
from diorama.systems.base import load_system
from diorama.types import Score, Step

CHUNK = 64  # pictures looked at together
CANDIDATES = 100  # captions among which a picture's own has to be found


class Seen(NamedTuple):
    """Pictures as the network sees them."""

    features: Tensor  # (n, d)
    embedding: Tensor | None  # (n, e) in the space of sentences, where the network has one
    texts: Sequence[str]  # n, empty where there is no caption


class Measured(NamedTuple):
    """A score, or why there is none."""

    score: Score | None
    why: str = ""


Measures = dict[str, Callable[[], Score]]


def captions(path: str) -> Mapping[str, str]:
    """What a table of captions says of each file."""
    suffixes = {Path(name).suffix for name in METADATA}
    if Path(path).suffix not in suffixes:
        raise UserError(f"{path} is no table of captions: give {', '.join(sorted(suffixes))} with file_name and text")
    table = open_metadata(Path(path))
    return {said["key"]: said["text"] for said in map(table.record, range(len(table)))}


class Judge:
    """Any system with `features(pictures)`; one that encodes pictures and sentences besides, as a clip does, scores captions."""

    def __init__(self, folder: Path, device: str = "auto", size: int | None = None):
        self.network = cast(Any, load_system(folder)).to(ground(device, "float32").device)
        if not hasattr(self.network, "features"):
            raise UserError(f"{folder} is a saved {self.network.card.slug}, which has no features to give: give a saved clip")
        self.name = f"{known_as(folder)} {weights_hash(folder)[:10]}"
        self.reads = hasattr(self.network, "encode_text")
        self.size = size or int(self.network.image.config.size if self.reads else index_of(folder).get("size", 0))
        if not self.size:
            raise UserError(f"{folder} does not say at which size it looks: give the one it was trained at with --size")
        self.notes: list[str] = []  # what a person should know beside the numbers

    @torch.inference_mode()
    def score(
        self, pictures: Source, reference: Source | None = None, said: Mapping[str, str] | None = None, paired: bool = False
    ) -> dict[str, Measured]:
        """Every measure by its name. A measure that cannot be taken says why."""
        seen = self.see(pictures, said)
        measures = {**self._of_words(seen), "diversity": lambda: diversity(seen.features)}
        if reference is not None:
            measures |= _of_sets(seen.features, self.see(reference).features)
            measures |= self._of_pairs(pictures, reference) if paired else {}
        return {name: self._taken(measure) for name, measure in measures.items()}

    def _taken(self, measure: Callable[[], Score]) -> Measured:
        try:
            score = measure()
        except UserError as error:
            return Measured(None, str(error))
        return Measured(replace(score, features=score.features or self.name))

    # --- looking ----------------------------------------------------------------------------------

    def see(self, source: Source, said: Mapping[str, str] | None = None) -> Seen:
        """All pictures that can be read, a chunk at a time; their captions are the source's own, or what is `said` of their keys."""
        features, embedding, texts, sizes = [], [], [], set()
        items = self._readable(source)
        while chunk := list(islice(items, CHUNK)):
            x = _tensor([on_white(fit(item.image, self.size)) for item in chunk])
            features.append(self.network.features(x).cpu())
            embedding += [self.network.encode_image(x).cpu()] if self.reads else []
            texts += [item.text if said is None else said.get(item.key, "") for item in chunk]
            sizes |= {item.image.size for item in chunk}
        self._tell_sizes(sizes)
        return Seen(torch.cat(features), torch.cat(embedding) if self.reads else None, texts)

    def _readable(self, source: Source) -> Iterator[Item]:
        broken = []
        with steps_bar("looking") as on_step:
            for i in range(len(source)):
                try:
                    yield source.read(i)
                except Unreadable as error:
                    broken.append(str(error))
                on_step(Step(i, len(source)))
        if len(broken) == len(source):
            raise UserError(f"none of {len(source)} pictures can be read, the first: {broken[0]}")
        if broken:
            self.notes.append(f"{len(broken)} of {len(source)} pictures cannot be read and are left out, the first: {broken[0]}")

    def _tell_sizes(self, sizes: set[tuple[int, int]]) -> None:
        if others := sizes - {(self.size, self.size)}:
            self.notes.append(
                f"pictures of {len(others)} other size{'s' * (len(others) > 1)} are resampled to {self.size} x {self.size}: "
                "opaque ones cut to their middle square, clear ones padded to one"
            )

    # --- the measures -----------------------------------------------------------------------------

    def _of_words(self, seen: Seen) -> Measures:
        rows = [i for i, text in enumerate(seen.texts) if text]
        if not rows:
            return {}
        if seen.embedding is None:
            self.notes.append(f"{self.name} reads no sentences: the captions are not used")
            return {}
        if len(rows) < len(seen.texts):
            self.notes.append(f"{len(seen.texts) - len(rows)} of {len(seen.texts)} pictures have no caption")
        texts = sorted({seen.texts[row] for row in rows})
        vectors = torch.cat([self.network.encode_text(texts[i : i + CHUNK]).cpu() for i in range(0, len(texts), CHUNK)])
        places = {text: i for i, text in enumerate(texts)}
        own, pictures = torch.tensor([places[seen.texts[row]] for row in rows]), seen.embedding[rows]
        return {
            "CLIP score": lambda: clip_score.score(clip_score(pictures, vectors[own])),
            f"R-precision, 1 of {min(CANDIDATES, len(texts))}": lambda: top(_ranks(pictures, vectors, own)),
        }

    def _of_pairs(self, source: Source, reference: Source) -> Measures:
        """Each beside the picture of the same name, at their own size."""
        values = [torch.stack([psnr(x, y), ssim(x, y)], 1) for x, y in _pairs(source, reference)]
        if len(values) < len(source):
            self.notes.append(f"{len(values)} of {len(source)} pictures have a partner of the same name and size")
        found = torch.cat([torch.empty(0, 2), *values])
        unlike = found[:, 0].isfinite()
        if not unlike.all():
            self.notes.append(f"{int((~unlike).sum())} pictures are equal to their partners and have no PSNR: it is infinite")
        return {"PSNR": lambda: psnr.score(found[unlike, 0]), "SSIM": lambda: ssim.score(found[:, 1])}


def _of_sets(x: Tensor, y: Tensor) -> Measures:
    fair = _thinned(x, len(y)), _thinned(y, len(x))  # as many of either
    shares, ratios = cache(lambda: precision_recall(*fair)), cache(lambda: density_coverage(*fair))
    return {
        "diversity of the reference": lambda: diversity(y),
        "Fréchet distance": lambda: frechet(x, y),
        "Fréchet distance, halves of the reference": lambda: frechet(y[::2], y[1::2]),
        "kernel distance (KID)": lambda: kernel_distance(*fair),
        "precision": lambda: shares()[0],
        "recall": lambda: shares()[1],
        "density": lambda: ratios()[0],
        "coverage": lambda: ratios()[1],
    }


def _thinned(x: Tensor, n: int) -> Tensor:
    """At most n rows, evenly spaced: a folder may be sorted by classes."""
    return x if len(x) <= n else x[torch.arange(n) * len(x) // n]


def _pairs(source: Source, reference: Source) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures of the same name and size, (1, 3, h, w) each."""
    partners = {reference.record(i)["key"]: i for i in range(len(reference))}
    for i in range(len(source)):
        if (partner := partners.get(source.record(i)["key"])) is not None:
            with suppress(Unreadable):  # which is told where all are looked at
                image, other = source.read(i).image, reference.read(partner).image
                if image.size == other.size:
                    yield _tensor([on_white(image)])[:, :3], _tensor([on_white(other)])[:, :3]


def _ranks(pictures: Tensor, vectors: Tensor, own: Tensor) -> Tensor:
    """Where each picture's own caption stands among others drawn at random: (n,)."""
    m, chance = min(CANDIDATES, len(vectors)), random.Random(0)
    rows = [[i, *[j for j in chance.sample(range(len(vectors)), m) if j != i][: m - 1]] for i in own.tolist()]
    parts = zip(pictures.split(CHUNK), torch.tensor(rows).split(CHUNK), strict=True)
    return torch.cat([ranks(part, vectors[candidates]) for part, candidates in parts])


def _tensor(pictures: Sequence[np.ndarray]) -> Tensor:
    """Equal pictures (4, h, w) uint8 -> (b, 4, h, w) in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).float().div_(127.5).sub_(1)
