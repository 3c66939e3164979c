"""The front door: words, seeds and paths in; pictures with their recipes out."""

from __future__ import annotations

import itertools
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import diorama
from diorama.asking import DEFAULTS, Asking, can_be_asked
from diorama.assets import asset
from diorama.errors import UserError
from diorama.files import atomic_folder, sha256
from diorama.models import (
    ADAPTER,
    ADAPTER_WEIGHTS,
    INDEX,
    fast_adapter,
    index_of,
    known_as,
    locate,
    locate_adapter,
    shipped,
    weights_hash,
)
from diorama.networks.lora import Adapter, told_of
from diorama.networks.precision import Ground, ground, processor_kind
from diorama.pictures import to_pil
from diorama.recipe import MOST, Picture, Recipe, Request, save
from diorama.storage import Storage
from diorama.systems.base import System, load_system
from diorama.types import Noise, OnStep, ignore, mix

# In which precision, and how many pictures together. Picture i must be the same, within 1/255, alone and in any batch,
# and kernels round differently at another batch size. Measured in the `mini` flow with random weights, 20 steps,
# guidance 4, on a Zen with AVX512-BF16: between chunks of 1 and 16, fp32 moves no pixel by more than 0.0008/255, bf16
# by up to 1.15/255; and starting noise changed by one part in a million moves fp32 by 0.0005/255, bf16 by 4.9/255.
# So bf16 must go picture by picture, and is worth that only where it is several times faster, with AMX. Seconds a
# picture there, two threads: fp32 0.78 alone, 0.43, 0.42, 0.36 in chunks of 4, 8, 16; bf16 0.68 alone. Beyond 8 little
# is gained, and eight bound the memory.
CHUNK = {torch.float32: 8, torch.bfloat16: 1}
DOUBLINGS = 2  # by the upsampler, each four times as dear as the one before; what is larger still is resampled


def where(device: str, dtype: str) -> Ground:
    """Where sampling stands: fp32 unless asked otherwise, or on a processor with AMX."""
    chosen = ground(device, dtype)
    amx = chosen.device.type == "cpu" and torch.cpu._is_amx_tile_supported()
    return ground(device, "float32") if dtype == "auto" and not amx else chosen


def load(
    name: str | Path = "default",
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    adapters: Sequence[str | Path] = (),
    fast: bool = False,
) -> Pipeline:
    """A shipped model by its name, or a saved one by its folder; it wears the `adapters`: folders, or FOLDER:STRENGTH.

    device: auto, cpu, cuda; dtype: auto, float32, bfloat16; threads: cores torch may use, its own choice if None; fast: it
    also wears the adapter with which it takes a few steps, where one is shipped.
    Raises UserError where there is no such model, its files are damaged, or the device or dtype cannot be had.
    """
    folder = locate(name)
    if threads is not None:
        if threads < 1:
            raise UserError(f"threads {threads} is not allowed: use 1 or more")
        torch.set_num_threads(threads)
    chosen = where(device, dtype)
    try:
        system = load_system(folder)
    except (TypeError, AttributeError, KeyError) as error:
        raise UserError(f"{folder / INDEX} does not fit its parts ({error}): fetch or make the folder again") from error
    if not can_be_asked(system):
        what = f"{name} is a saved {system.card.slug}, which is not asked by sentence and solver, by class or for nothing"
        raise UserError(f"{what}: give one that is, such as a flow, or call the system itself")
    located = [locate_adapter(str(words)) for words in ([fast_adapter(folder)] if fast else []) + list(adapters)]
    worn = [_worn(system, *adapter) for adapter in located]
    asks = {k: v for adapter, _ in located for k, v in _own_defaults(told_of(adapter), adapter / ADAPTER).items()}
    return Pipeline(system.to(chosen.device), folder, chosen, worn, asks)


def _worn(system: System, folder: Path, strength: float) -> tuple[str, str, float]:
    """The system wears the adapter from now on; its name, the hash of its weights, and its strength."""
    Adapter.read(folder).merge(system, strength)
    return folder.resolve().name, sha256(folder / ADAPTER_WEIGHTS), strength


class Pipeline:
    """A system with words at its front and Pillow pictures at its back. `load` makes one."""

    def __init__(
        self,
        system: System,
        folder: Path,
        chosen: Ground,
        adapters: Sequence[tuple[str, str, float]] = (),
        asks: Mapping[str, Any] = MappingProxyType({}),  # what the adapters would rather have than the model's own choice
    ):
        self.system: Any = _ready(system)
        self.adapters = tuple(adapters)  # as recipes name them
        self.folder, self.ground = folder, chosen
        self.name = known_as(folder)
        self._index = index_of(folder)
        self.asking = Asking(self.system, self.name)
        wished = {**_own_defaults(self._index, folder / INDEX), **asks}
        self.defaults = self.asking.defaults | {k: v for k, v in wished.items() if k in self.asking.takes}

    @property
    def size(self) -> int:
        """Pixels along a side, as the model makes them."""
        return int(self.system.size)

    @property
    def styles(self) -> tuple[str, ...]:
        return self.asking.styles

    @cached_property
    def weights(self) -> str:
        """SHA-256 over the files of its weights."""
        return weights_hash(self.folder)

    @cached_property
    def upsampler(self) -> Any:
        """The shipped upsampler that the model's index names; None where there is none, and larger pictures are resampled."""
        name = self._index.get("upsampler")
        return _ready(load_system(asset(name)).to(self.ground.device)) if name in shipped() else None

    @cached_property
    def upsampler_weights(self) -> str:
        """SHA-256 over the files of its weights; empty where there is none."""
        return "" if self.upsampler is None else weights_hash(self.upsampler.origin)

    # --- making pictures --------------------------------------------------------------------------

    def sample(
        self,
        prompts: str | Sequence[str] = "",
        *,
        seed: int = 0,
        n: int = 1,
        negative: str = "",
        style: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        solver: str | None = None,
        size: int | None = None,
        transparent: bool = False,
        on_step: OnStep = ignore,
    ) -> list[Picture]:
        """n Pillow pictures per prompt, in order; picture i of them all is the picture of seed + i alone.

        A prompt is a sentence, or the name of a class, whichever the model is asked by; "" is anything, and all that some are asked.
        RGB on white, or RGBA if `transparent`; size in pixels along a side, by default the model's own: a larger one is
        the work of its upsampler, where it has one, any other is resampled. What is None is the model's choice. Raises
        UserError for what cannot be had.
        """
        chosen = {"steps": steps, "guidance": guidance, "solver": solver}
        wanted = requests(prompts, seed, n, negative=negative, style=style, size=size, transparent=transparent, **chosen)
        return list(self.stream(wanted, on_step))

    def stream(self, requests: Sequence[Request], on_step: OnStep = ignore) -> Iterator[Picture]:
        """The picture of each request, in order, as soon as its chunk is done. All are checked before the first is begun."""
        return self._pictures(self.chunks(requests), on_step)

    def upsampled(self, requests: Sequence[Request]) -> list[Request]:
        """The requests with prompts made long by the model's own upsampler, each from its own seed. UserError where it has none."""
        upsampler = getattr(self.system, "prompt_upsampler", None)
        if upsampler is None:
            raise UserError(f"the model {self.name} does not make prompts longer: leave that out, or give a dalle3")
        noise = Noise([request.seed for request in requests], self.ground.device)
        prompts = upsampler([request.prompt for request in requests], noise)
        return [replace(request, prompt=prompt) for request, prompt in zip(requests, prompts, strict=True)]

    def chunks(self, requests: Sequence[Request]) -> list[list[Request]]:
        """The calls of the system that answer these requests, every choice made."""
        alike = itertools.groupby([self.resolve(request) for request in requests], _settings)
        most = 1 if self.asking.one_by_one else CHUNK[self.ground.dtype]
        return [rows for _, group in alike for rows in _batched(group, most)]

    def resolve(self, request: Request) -> Request:
        """The request with the model's own choices filled in. Raises UserError for what the model does not take or know."""
        chosen = {k: v for k, v in {**self.defaults, "size": self.size}.items() if getattr(request, k) is None}
        return replace(self.asking.understood(request), **chosen)

    def _pictures(self, chunks: Sequence[Sequence[Request]], on_step: OnStep, upsampled: bool = True) -> Iterator[Picture]:
        total, done = sum(_steps(chunk) for chunk in chunks), 0
        for chunk in chunks:
            began = time.perf_counter()
            x = self._sample(chunk, _shifted(on_step, done, total))
            done += _steps(chunk)
            sized = [self._sized(row, request, upsampled) for row, request in zip(x, chunk, strict=True)]
            seconds = (time.perf_counter() - began) / len(chunk)
            for row, ((picture, upsampler), request) in enumerate(zip(sized, chunk, strict=True)):
                image = to_pil(picture[None], request.transparent)[0]
                yield Picture.of(image, self._recipe(request, len(chunk), row, upsampler), seconds)

    def _sample(self, rows: Sequence[Request], on_step: OnStep) -> Tensor:
        """(b, 4, size, size) in [-1, 1] on the processor: on white, and alpha."""
        with self._exactly():
            x = self.asking(rows, Noise([request.seed for request in rows], self.ground.device), on_step)
        if not x.isfinite().all():
            guidance = rows[0].guidance
            less = "" if guidance is None else f"lower the guidance ({guidance:g}), or "
            raise UserError(f"the picture of seed {rows[0].seed} is not finite: {less}the weights are damaged")
        return x

    def _sized(self, x: Tensor, request: Request, upsampled: bool) -> tuple[Tensor, str]:
        """(4, h, w) at the size asked for, and the weights of the upsampler, if it was: doubled until large enough, then resampled.

        One picture at a time, so that none depends on its neighbours.
        """
        size = int(request.size or x.shape[-1])
        if not upsampled or size <= x.shape[-1] or self.upsampler is None:
            return lanczos(x, size), ""
        with self._exactly():
            for doubling in range(DOUBLINGS):
                if x.shape[-1] < size:
                    noise = Noise([mix(request.seed, doubling)], self.ground.device)
                    x = self.upsampler.sample(x[None].to(self.ground.device), noise=noise)[0].float().cpu()
        return lanczos(x, size), self.upsampler_weights

    @contextmanager
    def _exactly(self) -> Iterator[None]:
        with torch.inference_mode(), self.ground.autocast(), _exact_kernels():
            yield

    # --- recipes ----------------------------------------------------------------------------------

    def _recipe(self, request: Request, chunk: int, row: int, upsampler: str) -> Recipe:
        asked = {f.name: getattr(request, f.name) for f in fields(Request)}
        asked["guidance"] = None if request.guidance is None else float(request.guidance)
        return Recipe(
            **asked,
            model=self.name,
            weights=self.weights,
            upsampler=upsampler,
            adapters=self.adapters,
            **self._standing(),
            chunk=chunk,
            row=row,
            diorama=diorama.__version__,
        )

    def _standing(self) -> dict[str, Any]:
        return standing(self.ground, self.system)

    def differences(self, recipe: Recipe) -> list[str]:
        """What differs between the recipe's ground and this one, in words; empty where the same bits come out."""
        return [
            f"{name} {value}, then {getattr(recipe, name)}"
            for name, value in self._standing().items()
            if value != getattr(recipe, name)
        ]

    def replay(self, recipe: Recipe, say: Callable[[str], Any] = warnings.warn) -> Picture:
        """The picture of a recipe: the same bits on the same ground, else as close as rounding lets it be, and `say` tells.

        Raises UserError where the recipe was made with other weights.
        """
        if recipe.weights != self.weights:
            raise UserError(
                f"the picture was made with {recipe.maker}, not with {self.name!r}, "
                f"weights {self.weights[:10]}: name the folder of that model"
            )
        if [worn[1:] for worn in recipe.adapters] != [worn[1:] for worn in self.adapters]:
            raise UserError(
                f"the picture was made with {_wearing(recipe.adapters)}, not with {_wearing(self.adapters)}: load those"
            )
        if recipe.upsampler and recipe.upsampler != self.upsampler_weights:
            raise UserError(
                f"the picture was enlarged by an upsampler, weights {recipe.upsampler[:10]}, that this diorama does not have: "
                "install the version that made it"
            )
        if unsaid := [name for name in self.defaults if getattr(recipe, name) is None]:
            raise UserError(f"a recipe without {unsaid[0]} makes no picture of the model {self.name}: the file was changed")
        request = self.resolve(Request(**{f.name: getattr(recipe, f.name) for f in fields(Request)}))
        if differing := self.differences(recipe):
            say(f"replay on other ground ({'; '.join(differing)}): pixels may differ a little")
            return next(self._pictures([[request]], ignore, bool(recipe.upsampler)))
        # The other rows of the chunk only give the kernels the same shape, so they may repeat this one.
        pictures = list(self._pictures([[request] * recipe.chunk], ignore, bool(recipe.upsampler)))
        return pictures[recipe.row]

    # --- files ------------------------------------------------------------------------------------

    def save(self, image: Image.Image, path: str | Path) -> None:
        """The picture with its recipe inside; see `diorama.save`."""
        save(image, path)

    def save_pretrained(self, folder: str | Path, storage: Storage | None = None, name: str = "") -> None:
        """The model into a folder that `load` reads: the same files, or its weights stored anew as float32, bfloat16 or int8.

        Recipes name the files' hash, so only the same files replay pictures that were made with this model. One that wears
        adapters is stored anew, with them in its weights. `name` is what it is called from now on.
        """
        if storage is not None or self.adapters or name:
            settled = {"_class_name", "format_version", "system", "settings", "parameters", *self.system.part_types()}
            about = {**self._index, **({"name": name} if name else {})}
            if self.adapters:  # what they asked for is the model's own choice now, and it is another model
                about, settled = {**about, "defaults": self.defaults}, settled | {"fast"}
            kept = {k: v for k, v in about.items() if k not in settled}
            self.system.save_pretrained(folder, storage or "float32", **kept)
            return
        if Path(folder).resolve() == self.folder.resolve():
            return
        self.system.check_apart(folder)
        with atomic_folder(folder, replaces=INDEX) as new:
            shutil.copytree(self.folder, new, dirs_exist_ok=True, copy_function=shutil.copyfile)


def standing(chosen: Ground, system: Any) -> dict[str, Any]:
    """Everything beside request, weights and chunk that decides how the numbers round, as recipes tell it."""
    device, text = chosen.device, getattr(system, "text", None)
    return {
        "torch": str(torch.__version__),
        "dtype": chosen.dtype_name,
        "device": device.type,
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else processor_kind(),
        "threads": torch.get_num_threads(),
        "text_length": 0 if text is None else text.config.max_tokens,
    }


def _wearing(adapters: Sequence[tuple[str, str, float]]) -> str:
    return ", ".join(f"adapter {name!r}, weights {weights[:10]}, strength {s:g}" for name, weights, s in adapters) or "no adapter"


def _own_defaults(about: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The choices of a model, or of an adapter, checked as a person's would be."""
    own = about.get("defaults", {})
    if not isinstance(own, dict) or set(own) - set(DEFAULTS):
        raise UserError(f"{file}: defaults may only name {', '.join(DEFAULTS)}: mend it")
    Request(**own)
    return own


def requests(prompts: str | Sequence[str], seed: int = 0, n: int = 1, **options: Any) -> list[Request]:
    """n requests per prompt, the i-th of them all with seed + i. Raises UserError for what no model can do."""
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= MOST:
        raise UserError(f"n {n!r} is not allowed: use a whole number from 1 to {MOST}")
    sentences = [prompts] if isinstance(prompts, str) else list(prompts)
    every = [sentence for sentence in sentences for _ in range(n)]
    first = Request(prompt=every[0], seed=seed, **options) if every else None  # the seed itself is checked before it is added to
    return [replace(first, prompt=sentence, seed=seed + i) for i, sentence in enumerate(every) if first]


def _settings(request: Request) -> tuple[Any, ...]:
    """What the pictures of one call of the system share."""
    return request.steps, request.guidance, request.solver


def _steps(chunk: Sequence[Request]) -> int:
    return int(chunk[0].steps or 0)


def _batched(rows: Iterable[Request], most: int) -> Iterator[list[Request]]:
    rows = iter(rows)
    while batch := list(itertools.islice(rows, most)):
        yield batch


def _shifted(on_step: OnStep, before: int, total: int) -> OnStep:
    """One chunk's steps as a share of the whole request's."""
    return lambda step: on_step(replace(step, index=before + step.index, n=total))


def _ready(system: System) -> Any:
    # channels_last: a seventh less time per picture in fp32 (0.83 to 0.71 s on one core), nothing lost in bf16
    return system.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def lanczos(x: Tensor, size: int) -> Tensor:
    """Lanczos on the colours on white and on alpha: no dark or bright rim, since colour under alpha 0 has no say there."""
    if x.shape[-1] == size:
        return x
    planes = [Image.fromarray(plane).resize((size, size), Image.Resampling.LANCZOS) for plane in x.numpy()]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]))


@contextmanager
def _exact_kernels() -> Iterator[None]:
    """fp32 means fp32 on CUDA too: TF32 keeps ten bits of the mantissa, too few for the same picture in any batch."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


__all__ = ["CHUNK", "DEFAULTS", "Pipeline", "load", "requests"]
