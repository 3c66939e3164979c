"""The vocabulary of the house: what a condition, a denoiser, a process and a codec are. Imports only torch.

Shapes everywhere: b batch, c channels, n tokens, d width, t frames. Pictures are (b, c, h, w) in [-1, 1].
Masks have one polarity: 1 is to be generated, 0 is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from diorama.errors import UserError as UserError

if TYPE_CHECKING:
    from PIL.Image import Image

# --- randomness -----------------------------------------------------------------------------------


def mix(*numbers: int) -> int:
    """One well-scattered 63-bit seed from several integers (SplitMix64, Steele et al. 2014)."""
    mask, state = (1 << 64) - 1, 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return state >> 1


class Noise:
    """One generator per sample, so that sample i draws the same numbers alone or in any batch.

    Every draw is made on the processor and then moved, so a seed means the same on every device.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu"):
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self.device = torch.device(device)

    @classmethod
    def at(cls, seed: int, step: int, rank: int = 0, world: int = 1, *, n: int, device: torch.device | str = "cpu") -> Noise:
        """The n streams of one training step, counted as the data is: a run resumes anywhere, on any number of processes."""
        first = (step * world + rank) * n
        return cls([mix(seed, i) for i in range(first, first + n)], device)

    def __len__(self) -> int:
        return len(self.generators)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal (b, *shape)."""
        return self._draw(lambda g: torch.randn(shape, generator=g))

    def uniform(self, *shape: int) -> Tensor:
        """Uniform on [0, 1), (b, *shape)."""
        return self._draw(lambda g: torch.rand(shape, generator=g))

    def integers(self, high: int, *shape: int) -> Tensor:
        """Uniform int64 in 0 .. high - 1, (b, *shape)."""
        return self._draw(lambda g: torch.randint(high, shape, generator=g))

    def _draw(self, one: Callable[[torch.Generator], Tensor]) -> Tensor:
        return torch.stack([one(generator) for generator in self.generators]).to(self.device)


# --- what was asked for ---------------------------------------------------------------------------


class TextEmbedding(NamedTuple):
    """Encoded sentences. A row whose mask is all false and whose pooled vector is zero asks for nothing."""

    tokens: Tensor  # (b, n, d)
    mask: Tensor  # (b, n) bool, true where there is a token
    pooled: Tensor  # (b, d)


NO_LABEL = -1  # a label that asks for nothing
MASK = -1  # a token that is still to come

Value = Any  # a Tensor, a TextEmbedding, or None


def _map(function: Callable[..., Tensor], *values: Value) -> Value:
    """`function` on a tensor field, or on each tensor of a text embedding; None stays None."""
    if values[0] is None:
        return None
    if isinstance(values[0], TextEmbedding):
        return TextEmbedding(*(function(*parts) for parts in zip(*values, strict=True)))
    return function(*values)


def _nothing(name: str, value: Tensor) -> Tensor:
    return torch.full_like(value, NO_LABEL) if name == "label" else torch.zeros_like(value)


@dataclass(frozen=True)
class Condition:
    """What was asked for: optional named fields, batch first. Networks read the fields they know and ignore the others."""

    text: TextEmbedding | None = None
    label: Tensor | None = None  # (b,) int64, NO_LABEL asks for nothing
    image: Tensor | None = None  # (b, c, h, w) a picture to start from or to follow
    known: Tensor | None = None  # (b, 1, h, w) 1 = to be generated, 0 = known
    depth: Tensor | None = None
    pose: Tensor | None = None
    camera: Tensor | None = None
    trajectory: Tensor | None = None
    frames: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def _items(self) -> Iterator[tuple[str, Value]]:
        yield from ((f.name, getattr(self, f.name)) for f in fields(self) if f.name != "extra")

    def _each(self, function: Callable[..., Tensor], *others: Condition) -> Condition:
        """The same function on every field there is (of this condition and its neighbours)."""
        named = {k: _map(function, v, *(getattr(o, k) for o in others)) for k, v in self._items()}
        extra = {k: function(v, *(o.extra[k] for o in others)) for k, v in self.extra.items()}
        return Condition(**named, extra=extra)

    def null(self, *names: str) -> Condition:
        """The same condition with these fields (default: text and label) asking for nothing; a mask or a camera stays."""
        changed = {}
        for name in names or ("text", "label"):
            changed[name] = _map(lambda part, name=name: _nothing(name, part), getattr(self, name))
        return replace(self, **changed)

    def drop(self, chances: Mapping[str, float], noise: Noise) -> Condition:
        """Each sample loses fields with their own chances; "text+label" are lost together (Ho & Salimans 2022: one network, both models)."""
        changed: dict[str, Any] = {}
        for names, chance in chances.items():
            gone = noise.uniform() < chance  # drawn even where the field is absent: the stream must not depend on the data
            for name in names.split("+"):

                def keep(part: Tensor, name: str = name, gone: Tensor = gone) -> Tensor:
                    lost = gone.to(part.device).reshape(-1, *[1] * (part.ndim - 1))
                    return torch.where(lost, _nothing(name, part), part)

                changed[name] = _map(keep, changed.get(name, getattr(self, name)))
        return replace(self, **changed)

    def rows(self, index: Any) -> Condition:
        """The samples of this index: a slice, a list or a tensor of positions."""
        return self._each(lambda part: part[index])

    def repeat(self, n: int) -> Condition:
        """Every sample n times in a row."""
        return self._each(lambda part: part.repeat_interleave(n, 0))

    def to(self, device: torch.device | str) -> Condition:
        return self._each(lambda part: part.to(device))

    @staticmethod
    def cat(conditions: Sequence[Condition]) -> Condition:
        """One batch of several: all must have the same fields, so that guidance is one network call."""
        first, *rest = (c._padded(max(_text_length(o) for o in conditions)) for c in conditions)
        return first._each(lambda *parts: torch.cat(parts), *rest)

    def _padded(self, n: int) -> Condition:
        """Text padded with masked tokens to n, so that sentences of different lengths fit one batch."""
        if self.text is None or self.text.tokens.shape[1] == n:
            return self
        tokens, mask, pooled = self.text
        more = n - tokens.shape[1]
        padding = torch.nn.functional.pad
        return replace(self, text=TextEmbedding(padding(tokens, (0, 0, 0, more)), padding(mask, (0, more)), pooled))


def _text_length(condition: Condition) -> int:
    return 0 if condition.text is None else condition.text.tokens.shape[1]


# --- the protocols --------------------------------------------------------------------------------


class Prediction(NamedTuple):
    """What a denoiser expects: the clean sample and, where it is learned, the variance of the step."""

    x0: Tensor
    variance: Tensor | None = None


@dataclass(frozen=True)
class Step:
    """One step of a long job, as its `on_step` sees it, which stops the job by raising."""

    index: int  # 0 .. n - 1
    n: int
    x0: Tensor | None = None  # the current estimate of the clean sample, for previews
    sigma: float | None = None
    values: Mapping[str, float] = field(default_factory=dict)  # named numbers: losses, rates


OnStep = Callable[[Step], None]


def ignore(step: Step) -> None:
    """The `on_step` that does nothing."""


class Network(Protocol):
    """What learns. It knows noise levels only as an embedding input."""

    def __call__(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor: ...


class Denoiser(Protocol):
    """D(x; sigma, condition): the expected clean sample given a noisy one (Karras et al. 2022, eq. 2-3).

    x (b, c, *spatial) = x0 + sigma * noise; sigma (b,). Every sampler and every guidance is written against this.
    """

    @property
    def sigmas(self) -> Tensor | None:
        """(T,) rising, where it was trained on a discrete table; None where every level is known."""

    def __call__(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor: ...

    def predict(self, x: Tensor, sigma: Tensor, condition: Condition) -> Prediction: ...


class Predictor(Protocol):
    """The denoiser's twin for tokens: (b, *places) int64, MASK where still to come -> logits (b, *places, codes)."""

    def __call__(self, tokens: Tensor, condition: Condition) -> Tensor: ...


class Process(Protocol):
    """How nothing becomes something: a prior, a loss per sample, and a sampler from any start."""

    def prior(self, shape: Sequence[int], noise: Noise) -> Tensor: ...

    def loss(self, model: Denoiser, x: Tensor, condition: Condition, noise: Noise) -> Tensor: ...

    def sample(
        self, model: Denoiser, start: Tensor, condition: Condition, *, levels: Tensor, noise: Noise, on_step: OnStep = ignore
    ) -> Tensor: ...


class Codec(Protocol):
    """Data to latents of unit variance, and back; differentiable both ways."""

    def encode(self, x: Tensor, noise: Noise | None = None) -> Tensor: ...

    def decode(self, z: Tensor) -> Tensor: ...


class Codes(NamedTuple):
    """Latents put into the words of a codebook."""

    indices: Tensor  # (b, *places) int64
    z_q: Tensor  # (b, c, *places), with the gradient of the latents themselves
    loss: Tensor  # (b,) what brings latents and codes together


class Tokenizer(Codec, Protocol):
    """A codec whose latents can be written as tokens, and read back."""

    def quantise(self, z: Tensor) -> Codes: ...

    def lookup(self, indices: Tensor) -> Tensor: ...


class TextEncoder(Protocol):
    """Sentences to vectors. An empty sentence asks for nothing."""

    def __call__(self, texts: Sequence[str]) -> TextEmbedding: ...


class Critic(Protocol):
    """What says how good it is. It streams, one row per sample, so a data set never has to fit in memory."""

    def observe(self, samples: Any, truth: Any) -> Tensor: ...

    def score(self, observed: Tensor, reference: Tensor | None = None) -> Score: ...


# --- data and results -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """One training example: a picture in straight (not premultiplied) RGBA, what is said of it, and where it came from."""

    key: str
    image: Image  # mode RGBA
    text: str = ""
    label: str | None = None  # the class folder, the style, the label column
    fields: Mapping[str, Any] = field(default_factory=dict)  # whatever else the data set says


@dataclass(frozen=True)
class Batch:
    """Training pictures with what is known of them; `image` (b, c, h, w) in [-1, 1]."""

    image: Tensor
    text: Sequence[str] = ()
    label: Tensor | None = None  # (b,) int64
    latent: Tensor | None = None  # the codec's view of `image`, where it was cached
    embedding: TextEmbedding | None = None  # the text encoder's view of `text`, where it was cached
    masks: Tensor | None = None  # (b, k, h, w) in 0 .. 1: what in each picture may be meant, rows of zeros beyond what there is
    short: Sequence[str] = ()  # the same as `text` in few words, where the data says it, else empty

    def __len__(self) -> int:
        return len(self.image if self.latent is None else self.latent)


@dataclass(frozen=True)
class Score:
    """A measured number with everything needed to read it."""

    value: float
    stderr: float
    unit: str
    higher_is_better: bool
    n: int
    features: str = ""  # what it stands on, where that is a network's view: whose, and which weights
