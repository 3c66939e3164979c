"""Networks that look at pictures and read captions, and every measure that what they saw allows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diorama.apps.output import steps_bar
from diorama.critics.contrastive import clip_score, ranks, top
from diorama.critics.fid import fid
from diorama.critics.fidelity import ms_ssim, perceptual, psnr, ssim
from diorama.critics.frechet import frechet, kernel_distance
from diorama.critics.precision import density_coverage, diversity, precision_recall
from diorama.critics.statistics import PerSample
from diorama.data import Item, Source, Unreadable
from diorama.data.batches import fit, on_white
from diorama.data.folder import METADATA, open_metadata
from diorama.errors import UserError
from diorama.hub.features import BorrowedClip, read_inception, title
from diorama.models import INDEX, index_of, known_as, weights_hash
from diorama.networks.inception import SIDE
from diorama.networks.precision import ground
from diorama.systems.base import load_system
from diorama.types import Score, Step

CHUNK = 64  # pictures looked at together
WORDS = "world-scorer"  # the foundation model that reads captions where the network that looks does not
MOST = 10_000  # pictures of a set that are compared by pairs, of which a hundred million fit in memory
CANDIDATES = 100  # captions among which a picture's own has to be found


class Eye(NamedTuple):
    """A network with `features(pictures)`; one that encodes pictures and sentences besides, as a clip does, reads captions."""

    network: Any
    name: str  # with the hash of its weights
    size: int  # pixels along a side at which it looks, 0 where it does not say
    fid: bool = False  # FID's, which brings pictures to its size in its own way, and compares plain covariances

    @property
    def reads(self) -> bool:
        return hasattr(self.network, "encode_text")


class Seen(NamedTuple):
    """Pictures as the networks see them."""

    features: Tensor  # (n, d)
    texts: Sequence[str]  # m, of those that have a caption
    embedding: Tensor | None  # (m, e) in the space of sentences, where a network reads them


class Measured(NamedTuple):
    """A score, or why there is none."""

    score: Score | None
    why: str = ""


Measures = dict[str, Callable[[], Score]]


def captions(path: str, pictures: Source) -> Mapping[str, str]:
    """What a table of captions says of each file. Raises UserError where it says nothing of any of these pictures."""
    suffixes = {Path(name).suffix for name in METADATA}
    if Path(path).suffix not in suffixes:
        raise UserError(f"{path} is no table of captions: give {', '.join(sorted(suffixes))} with file_name and text")
    table = open_metadata(Path(path))
    said = {record["key"]: record["text"] for record in map(table.record, range(len(table))) if record["text"]}
    keys = [pictures.record(i)["key"] for i in range(len(pictures))]
    if said.keys().isdisjoint(keys):
        raise UserError(
            f"none of {len(said)} captions belongs to a picture: give file_name as the pictures are called, the first {keys[0]}"
        )
    return said


def eye(folder: Path, device: str = "auto") -> Eye:
    """The network in this folder: a saved system, or a CLIP of transformers; of a file, FID's Inception.

    Raises UserError where it has no features to give.
    """
    place = ground(device, "float32").device
    if folder.is_file():
        return Eye(read_inception(folder).to(place), title(folder), SIDE, fid=True)
    if not (folder / INDEX).is_file():
        clip = BorrowedClip.from_pretrained(folder)
        return Eye(clip.to(place), title(folder), clip.size)
    system = cast(Any, load_system(folder))
    if not hasattr(system, "features"):
        raise UserError(f"{folder} is a saved {system.card.slug}, which has no features to give: give a saved clip")
    size = system.image.config.size if hasattr(system, "encode_text") else index_of(folder).get("size", 0)
    return Eye(system.to(place), f"{known_as(folder)} {weights_hash(folder)[:10]}", int(size))


class Judge:
    """What one network sees of pictures, and what it, or where it reads no sentences the one in `words`, reads of their captions."""

    def __init__(self, folder: Path, device: str = "auto", size: int | None = None, words: Path | None = None):
        self.eye = eye(folder, device)
        self._words, self._device = words, device
        self.size = size or self.eye.size
        self._stretches = self.eye.fid and size is None
        if not self.size:
            raise UserError(f"{folder} does not say at which size it looks: give the one it was trained at with --size")
        self.notes: list[str] = []  # what a person should know beside the numbers

    @cached_property
    def reader(self) -> Eye | None:
        """What reads captions."""
        if self.eye.reads:
            return self.eye
        return None if self._words is None else eye(self._words, self._device)

    @torch.inference_mode()
    def score(
        self, pictures: Source, reference: Source | None = None, said: Mapping[str, str] | None = None, paired: bool = False
    ) -> dict[str, Measured]:
        """Every measure by its name. A measure that cannot be taken says why. `said` are captions instead of the pictures' own.

        Raises UserError where no picture can be read, or no network reads what is `said`.
        """
        if said is not None and self.reader is None:
            raise UserError(self._unread)
        seen = self.see(pictures, (lambda item: item.text) if said is None else lambda item: said.get(item.key, ""))
        measures = {**self._of_words(seen), "diversity": lambda: diversity(seen.features)}
        if reference is not None:
            measures |= _of_sets(seen.features, self.see(reference).features, self.eye.fid)
            measures |= self._of_pairs(pictures, reference) if paired else {}
        return {name: self._taken(measure) for name, measure in measures.items()}

    def _taken(self, measure: Callable[[], Score]) -> Measured:
        try:
            score = measure()
        except UserError as error:
            return Measured(None, str(error))
        return Measured(replace(score, features=score.features or self.eye.name))

    # --- looking ----------------------------------------------------------------------------------

    def see(self, source: Source, text: Callable[[Item], str] = lambda item: "") -> Seen:
        """All pictures that can be read, a chunk at a time, those with a `text` in the space of sentences too."""
        features, embedding, texts, sizes = [], [], [], set()
        items = self._readable(source)
        while chunk := list(islice(items, CHUNK)):
            x, said = self._fitted([item.image for item in chunk]), [text(item) for item in chunk]
            features.append(self.eye.network.features(x).cpu())
            rows = [i for i, words in enumerate(said) if words]
            texts += [said[i] for i in rows]
            if rows and self.reader:
                embedding.append(self.reader.network.encode_image(x[rows]).cpu())
            sizes |= {item.image.size for item in chunk}
        self._tell_sizes(sizes)
        return Seen(torch.cat(features), texts, torch.cat(embedding) if embedding else None)

    def _fitted(self, images: Sequence[Image.Image]) -> Tensor:
        if self._stretches:
            return torch.cat([self.eye.network.resized(_tensor([image])) for image in images])
        return _tensor([fit(image, self.size) for image in images])

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
        if self._stretches:
            if len(sizes) > 1 or any(wide != high for wide, high in sizes):
                self.notes.append(
                    f"pictures of {len(sizes)} size{'s' * (len(sizes) > 1)} are each stretched to {self.size} x {self.size}: "
                    "--size cuts them to their middle square first, and makes them alike"
                )
        elif others := sizes - {(self.size, self.size)}:
            self.notes.append(
                f"pictures of {len(others)} other size{'s' * (len(others) > 1)} are resampled to {self.size} x {self.size}: "
                "opaque ones cut to their middle square, clear ones padded to one"
            )

    # --- the measures -----------------------------------------------------------------------------

    @property
    def _unread(self) -> str:
        return (
            f"{self.eye.name} reads no sentences and {WORDS} is not here: run `diorama foundations {WORDS}` once, "
            "or give a clip with --features"
        )

    def _of_words(self, seen: Seen) -> Measures:
        if not seen.texts:
            return {}
        if self.reader is None or seen.embedding is None:
            self.notes.append(f"the captions are not used: {self._unread}")
            return {}
        if len(seen.texts) < len(seen.features):
            self.notes.append(f"{len(seen.features) - len(seen.texts)} of {len(seen.features)} pictures have no caption")
        pictures, texts, encode = seen.embedding, sorted(set(seen.texts)), self.reader.network.encode_text
        vectors = torch.cat([encode(texts[i : i + CHUNK]).cpu() for i in range(0, len(texts), CHUNK)])
        places = {text: i for i, text in enumerate(texts)}
        own = torch.tensor([places[text] for text in seen.texts])
        measures: Measures = {
            "CLIP score": lambda: clip_score.score(clip_score(pictures, vectors[own])),
            f"R-precision, 1 of {min(CANDIDATES, len(texts))}": lambda: top(_ranks(pictures, vectors, own)),
        }
        return {name: partial(_standing_on, self.reader.name, measure) for name, measure in measures.items()}

    def _of_pairs(self, source: Source, reference: Source) -> Measures:
        """Each beside the picture of the same name: pixels at their own size, features at the network's."""
        pairs = {
            "PSNR": Pairs(psnr, _psnr),
            "SSIM": Pairs(ssim, _of_pixels(ssim)),
            "MS-SSIM": Pairs(ms_ssim, _of_pixels(ms_ssim)),
            "perceptual distance": Pairs(perceptual, self._perceptual),
        }
        n = 0
        for pair in _pairs(source, reference):
            n += 1
            for found in pairs.values():
                found.take(pair)
        if n < len(source):
            self.notes.append(f"{n} of {len(source)} pictures have a partner of the same name and size")
        for name, found in pairs.items():
            if found.values and found.refused:
                self.notes.append(f"{len(found.refused)} of {n} pairs have no {name}, the first: {found.refused[0]}")
        return {name: found.score for name, found in pairs.items()}

    def _perceptual(self, pair: Pair) -> Tensor:
        if not hasattr(self.eye.network, "maps"):
            raise UserError(
                f"{self.eye.name} does not tell what it sees at each place: leave out --features, or give a classifier or a "
                "CLIP of transformers"
            )
        # each alone: rows of one batch may round apart, and equal pictures would be a little unlike
        one, other = (
            [level.cpu() for level in self.eye.network.maps(self._fitted([picture]))] for picture in (pair.image, pair.other)
        )
        return perceptual(one, other)


@dataclass(frozen=True)
class Pair:
    """A picture beside its partner of the same name and size, both on white."""

    image: Image.Image
    other: Image.Image

    @cached_property
    def pixels(self) -> tuple[Tensor, Tensor]:
        """(1, 3, h, w) each, for every measure that looks at them."""
        return _tensor([self.image])[:, :3], _tensor([self.other])[:, :3]


Look = Callable[[Pair], Tensor]


@dataclass
class Pairs:
    """One measure of pictures beside their partners: a number each, (1,), or why there is none."""

    critic: PerSample[...]
    look: Look
    values: list[Tensor] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def take(self, pair: Pair) -> None:
        try:
            self.values.append(self.look(pair))
        except UserError as error:
            self.refused.append(str(error))

    def score(self) -> Score:
        """Raises UserError where there are too few, with the reason where that is not their number."""
        if self.refused and not self.values:
            raise UserError(self.refused[0])
        return self.critic.score(torch.cat([torch.empty(0), *self.values]))


def _of_pixels(critic: PerSample[...]) -> Look:
    return lambda pair: critic(*pair.pixels)


def _psnr(pair: Pair) -> Tensor:
    value = psnr(*pair.pixels)
    if value.isinf():
        raise UserError("of equal pictures it is infinite")
    return value


def _standing_on(name: str, measure: Callable[[], Score]) -> Score:
    return replace(measure(), features=name)


def _of_sets(x: Tensor, y: Tensor, as_published: bool = False) -> Measures:
    fair = _thinned(x, min(len(y), MOST)), _thinned(y, min(len(x), MOST))  # as many of either
    name, far = ("FID", fid) if as_published else ("Fréchet distance", frechet)
    shares, ratios = cache(lambda: precision_recall(*fair)), cache(lambda: density_coverage(*fair))
    return {
        "diversity of the reference": lambda: diversity(y),
        name: lambda: far(x, y),
        f"{name}, halves of the reference": lambda: far(y[::2], y[1::2]),
        "kernel distance (KID)": lambda: kernel_distance(*fair),
        "precision": lambda: shares()[0],
        "recall": lambda: shares()[1],
        "density": lambda: ratios()[0],
        "coverage": lambda: ratios()[1],
    }


def _thinned(x: Tensor, n: int) -> Tensor:
    """At most n rows, evenly spaced: a folder may be sorted by classes."""
    return x if len(x) <= n else x[torch.arange(n) * len(x) // n]


def _pairs(source: Source, reference: Source) -> Iterator[Pair]:
    partners = {reference.record(i)["key"]: i for i in range(len(reference))}
    for i in range(len(source)):
        if (partner := partners.get(source.record(i)["key"])) is not None:
            with suppress(Unreadable):  # which is told where all are looked at
                image, other = source.read(i).image, reference.read(partner).image
                if image.size == other.size:
                    white = Image.new("RGBA", image.size, "white")
                    yield Pair(Image.alpha_composite(white, image), Image.alpha_composite(white, other))


def _ranks(pictures: Tensor, vectors: Tensor, own: Tensor) -> Tensor:
    """Where each picture's own caption stands among others drawn at random: (n,)."""
    m, chance = min(CANDIDATES, len(vectors)), random.Random(0)
    rows = [[i, *[j for j in chance.sample(range(len(vectors)), m) if j != i][: m - 1]] for i in own.tolist()]
    parts = zip(pictures.split(CHUNK), torch.tensor(rows).split(CHUNK), strict=True)
    return torch.cat([ranks(part, vectors[candidates]) for part, candidates in parts])


def _tensor(images: Sequence[Image.Image]) -> Tensor:
    """Pictures of one size -> (b, 4, h, w) on white in [-1, 1]."""
    return torch.from_numpy(np.stack([on_white(image) for image in images])).float().div_(127.5).sub_(1)
