"""From a folder of pictures to a trained system: the wiring behind `diorama train`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch

from diorama.assets import asset
from diorama.cards import find, system_class
from diorama.conditions.caption import CaptionEncoder
from diorama.data.batches import Ahead, Batches
from diorama.data.clips import ClipBatches
from diorama.data.encoded import Encoded, encode, fingerprint, sayings, stamps
from diorama.data.open import describe
from diorama.data.source import Source
from diorama.data.views import Relabelled
from diorama.errors import UserError
from diorama.files import atomic_file, read_json, sha256, tidy, write_json
from diorama.models import index_of, known_as, weights_hash
from diorama.networks.precision import ground
from diorama.sources import Anything, Data, Films, Worlds
from diorama.systems.base import Kind, System, load_system, read_part
from diorama.training.checkpoint import checkpoints
from diorama.training.loop import History, check_trackers, fit, main_first
from diorama.training.plan import Plan
from diorama.types import Batch, Noise, OnStep, ignore
from diorama.worlds.parts import Masked
from diorama.worlds.source import World, WorldBatches

PIXELS = 64 * 128**2  # that are looked at together where nothing is learned: held out, encoded; 64 pictures of the default's size


def train(
    slug: str,
    data: Anything,
    out: Path,
    plan: Plan,
    *,
    preset: str = "mini",
    base: Path | Sequence[Path] | None = None,
    start: Path | None = None,
    tensorboard: bool = False,
    name: str = "",
    on_step: OnStep = ignore,
    on_encode: OnStep = ignore,
    say: Callable[[str], None] = print,
) -> History:
    """Train a system on the pictures of `data` into `out`; start again with the same words to resume.

    `base` is a saved system whose frozen parts (codec, text encoder) are taken over, or several, of which the first that has
    a part gives it; the shipped default if None. `start` is a saved one of this system that is carried on with, whatever its
    preset. Leaves checkpoints, samples, log.jsonl and, at the end, `out/model`.
    """
    kind: type[System] = system_class(find(slug))
    kept: Mapping[str, Any] = {}  # of the index of the model that is gone on from
    if isinstance(data, Worlds) and data.form is None:
        data = replace(data, form=kind.learns_form)
    trackers = ["tensorboard"] if tensorboard else []
    check_trackers(trackers)
    with main_first(plan) as main:  # the others find the cache it made
        say = say if main else lambda line: None
        found = _opened(data, plan.seed, say)
        source, held = data.split(found, plan.seed)
        torch.manual_seed(plan.seed)  # initial weights; the loop forks torch's generator for all the rest
        parts = Parts([base] if isinstance(base, Path) else base or (), found)
        if start is None:
            begins = {"preset": preset, "start": ""}
            system = kind.new(preset=preset, size=data.size, labels=source.labels, part=parts)
        else:
            system, kept = _started(start, kind, data.size), _kept_of(start)
            parts.taken["start"] = weights_hash(start)
            begins = {"preset": "", "start": f"{known_as(start)} {parts.taken['start'][:10]}"}
            system.check_apart(out / "model")
            source, held = _in_words_of(system, data, source, held, say)
        system.begin(parts)
        holds = {} if isinstance(data, Worlds) else {"number of pictures": len(found)}
        run = {"system": slug, **begins, "data": data.name, **_words(data, plan), **holds}
        _begin(out, {**run, "frozen parts": parts.fingerprint}, main)  # not before all that may refuse
        if _finished(out, plan.steps):
            say(f"{out} is trained: {plan.steps} steps or more are done; ask for more with --steps to go on")
            return History()
        system.to(ground(plan.device, plan.dtype).device)
        batches = _batches(system, parts, data, found, source, plan, out, on_encode, say)
    held_batches = _reader(held, data, min(_many(data.size), len(held)), plan.seed, masks=system.learns_masks)
    preview = _Preview(system, held_batches, out / "samples", plan.seed)
    history = fit(system, Ahead(batches), plan, out, on_step=on_step, held_out=held_batches, preview=preview, trackers=trackers)
    system.finish(held_batches(0))
    if main:
        pictures = plan.steps * plan.batch * plan.accumulate
        about = {**kept, "name": name or out.name, "size": data.size, "steps": plan.steps, "pictures": pictures}
        system.save_pretrained(out / "model", **about)
    _say_skipped(batches.skipped, history.skipped, say)
    return history


def _opened(data: Anything, seed: int, say: Callable[[str], None]) -> Source:
    """All the data there is, after a word on it."""
    found = data.open(seed)
    about = cast(World, found) if isinstance(data, Worlds) else describe(found)
    for line in about.lines():
        say(line)
    return found


def _started(folder: Path, kind: type[System], size: int) -> System:
    """A trained system to carry on with. Raises UserError where it is another one, or of another size."""
    system = load_system(folder)
    if type(system) is not kind:
        raise UserError(
            f"{known_as(folder)} is a saved {system.card.slug}, which is no {kind.card.slug}: name another with --start"
        )
    if (own := getattr(system, "size", size)) != size:
        raise UserError(f"size {size} is not that of {known_as(folder)}: use --size {own}")
    return system


def _in_words_of(
    system: System, data: Anything, source: Source, held: Source, say: Callable[[str], None]
) -> tuple[Source, Source]:
    """What is trained on and what is not, under the labels that a trained system knows. Raises UserError where none is among them."""
    known = system.known_labels
    if not known or source.labels == known:
        return source, held
    strange = sorted(set(source.labels) - set(known))
    others = f"{', '.join(strange[:5])}{', ...' * (len(strange) > 5)}"
    if not isinstance(data, Data) or (system.needs_labels and len(strange) == len(source.labels)):
        raise UserError(f"the labels of {data.name} ({others or 'none'}) are not the model's ({', '.join(known)}): begin anew")
    if strange:
        say(f"labels that the model does not know are left out: {others}")
    return Relabelled(source, known), Relabelled(held, known)


def _kept_of(start: Path) -> dict[str, Any]:
    """What a model that is gone on from would be asked for, and is enlarged by; its fast adapter fits its own weights alone."""
    index = index_of(start)
    return {name: index[name] for name in ("defaults", "upsampler") if name in index}


def _finished(out: Path, steps: int) -> bool:
    """Whether the model is there already: writing it again could only change its last bits, and with them its name."""
    done = [int(path.name.removeprefix("step-")) for path in checkpoints(out / "checkpoints")]
    return (out / "model").is_dir() and max(done, default=0) >= steps


def _batches(
    system: System,
    parts: Parts,
    data: Anything,
    found: Source,
    source: Source,
    plan: Plan,
    out: Path,
    on_encode: OnStep,
    say: Callable[[str], None],
) -> Batches | WorldBatches | Encoded:
    """What the loop reads: the pictures, or what the frozen parts saw in them. `source` is made of what was `found`."""
    if not data.cache or not system.cacheable:
        return _reader(source, data, plan.batch, plan.seed, threads=2, masks=system.learns_masks)

    def see(batch: Batch) -> Batch:
        with torch.no_grad(), ground(plan.device, plan.dtype).autocast():  # no wider: autocast joins no float16 on a processor
            return system.encode(batch)

    state = sayings(found), stamps(found)
    key, cache = fingerprint(data, *state, len(source), plan.seed, parts.fingerprint), out / "cache.safetensors"
    say(f"encoding {len(source)} pictures once (kept in {cache})")
    n = _many(data.size)
    return encode(source, data.size, see, batch=plan.batch, seed=plan.seed, cache=cache, key=key, n=n, on_step=on_encode)


def _many(size: int) -> int:
    """How many pictures of this size are looked at together, at most."""
    return max(1, min(64, PIXELS // size**2))


def _reader(
    source: Source, data: Anything, batch: int, seed: int, threads: int = 0, masks: bool = False
) -> Batches | WorldBatches:
    if isinstance(data, Worlds):
        world = cast(World, source)
        return WorldBatches(Masked(world) if masks else world, batch)
    if isinstance(data, Films):
        return ClipBatches(source, data.size, batch, seed, frames=data.frames, threads=threads)
    return Batches(source, data.size, batch, seed, threads=threads)


def _say_skipped(pictures: Mapping[str, str], steps: int, say: Callable[[str], None]) -> None:
    if pictures:
        named = "; ".join(f"{key}: {reason}" for key, reason in list(pictures.items())[:10])
        say(f"{len(pictures)} pictures could not be read and were left out: {named}{'; ...' * (len(pictures) > 10)}")
    if steps:
        say(f"{steps} steps were left out because their loss or gradient was not finite")


class Parts:
    """The parts a new system stands on: frozen ones of the first base that has them, else shipped ones; a new one to learn words with."""

    WORDS_FROM = 4000  # captions

    def __init__(self, bases: Sequence[Path], found: Source):
        self.bases, self.found = tuple(bases), found
        self.taken: dict[str, str] = {}  # name: SHA-256 of its weights

    def __call__(self, name: str, kind: type[Kind]) -> Kind:
        if issubclass(kind, CaptionEncoder):  # trains with the system: only its vocabulary is of the data
            captions = (self.found.record(i)["text"] for i in range(min(self.WORDS_FROM, len(self.found))))
            return cast(Kind, kind.of(captions))
        if issubclass(kind, System):
            return self._system(name, kind)
        folder = next((base / name for base in (*self.bases, asset("default")) if (base / name).is_dir()), None)
        if folder is None:
            raise UserError(f"there is no trained part {name!r} to stand on: name the folder of a model that has it with --base")
        self.taken[name] = sha256(folder / "model.safetensors")
        return read_part(folder, kind)

    def _system(self, name: str, kind: type[Kind]) -> Kind:
        """All of the first base that is one."""
        saved = {folder: find(index_of(folder)["system"]) for folder in self.bases or (asset("default"),)}
        folder = next((folder for folder, card in saved.items() if issubclass(system_class(card), kind)), None)
        if folder is None:
            first, card = next(iter(saved.items()))
            raise UserError(f"{first} is a saved {card.slug}, which is no {kind.__name__}: name another with --base")
        self.taken[name] = weights_hash(folder)
        return cast(Kind, load_system(folder))

    @property
    def fingerprint(self) -> str:
        return fingerprint(*sorted(self.taken.items())) if self.taken else ""


class _Preview:
    """A sheet of pictures for the first held-out captions, written now and then."""

    def __init__(self, system: System, held: Batches | WorldBatches, folder: Path, seed: int, n: int = 16):
        self.system, self.batch, self.folder = system, held(0), folder
        self.n, self.seed = min(n, len(self.batch)), seed

    def __call__(self, step: int) -> None:
        from diorama.pictures import sheet, to_pil  # Pillow only where there is something to draw

        rows = slice(0, self.n)
        label, masks = (None if part is None else part[rows] for part in (self.batch.label, self.batch.masks))
        batch = Batch(self.batch.image[rows], self.batch.text[rows], label, masks=masks)
        pictures = self.system.look(batch, Noise([self.seed + i for i in range(self.n)], self.system.device))
        self.folder.mkdir(exist_ok=True)
        with atomic_file(self.folder / f"step-{step:08d}.png") as new:
            sheet(to_pil(pictures)).save(new)


def minutes(log: Path, batch: int) -> float:
    """Time that was spent in steps of so many pictures, in all sittings together, by the rate at each logged one."""
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [0, *(entry["step"] for entry in entries)]
    rates = [entry["pictures_per_second"] for entry in entries]
    return sum((b - a) * batch / rate for (a, b), rate in zip(pairwise(steps), rates, strict=True)) / 60


FREE = {"path", "cache", "steps", "save_minutes", "sample_every", "log_every", "keep", "patience", "device", "dtype"}


def _words(data: Anything, plan: Plan) -> dict[str, Any]:
    """What was asked for, by the names of the flags, but for what is FREE to change in a run: the rest makes it another one."""
    words = {name.replace("_", "-"): value for name, value in {**asdict(plan), **asdict(data)}.items() if name not in FREE}
    return cast(dict[str, Any], json.loads(json.dumps(words)))  # as they will be read back


def _begin(out: Path, run: dict[str, Any], main: bool) -> None:
    """The run's folder, without what a broken run left half-written, and its words in it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {out} ({error.strerror}): choose another --out") from None
    for folder in (out, out / "samples", out / "checkpoints") if main else ():
        tidy(folder)
    _remember(out / "train.json", run)


def _remember(path: Path, run: dict[str, Any]) -> None:
    """The run's own words; resuming with others is a mistake worth a sentence."""
    before = read_json(path) if path.is_file() else {}
    if changed := [name for name in run if before.get(name, run[name]) != run[name]]:
        was, now = before[changed[0]], run[changed[0]]
        raise UserError(f"{path.parent} was started with {changed[0]} {was!r}, not {now!r}: use that to resume, or another --out")
    write_json(path, run)
