"""From a folder of pictures to a trained system: the wiring behind `diorama train`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diorama.assets import asset
from diorama.cards import find
from diorama.codecs.conv import ConvCodec, ConvCodecConfig
from diorama.conditions.text import SentenceEncoder
from diorama.data.batches import Ahead, Batches
from diorama.data.compose import Composed
from diorama.data.encoded import encode, fingerprint
from diorama.data.open import open_data
from diorama.data.source import Source
from diorama.data.views import Repeated, Subset, hold_out
from diorama.errors import UserError
from diorama.files import sha256, write_json
from diorama.networks.precision import ground
from diorama.systems.base import System
from diorama.systems.images.autoencoder import Autoencoder
from diorama.systems.images.flow import PRESETS, Flow
from diorama.training.loop import History, fit
from diorama.training.plan import Plan
from diorama.types import Noise, OnStep, ignore


@dataclass(frozen=True, kw_only=True)
class Data:
    """What to train on, and how to look at it."""

    path: Path
    on_white: bool = False  # RGB is stored already laid on white; alpha is a mask
    size: int = 128  # pixels along a side
    compose: int = 0  # true captions composed from alpha: this many composed pictures per picture; 0 trains on the pictures as they are
    often: str = ""  # FIELD=TIMES: items whose field is true are seen that many times as often
    hold_out: float = 0.0  # share of (concept, style) combinations, where the data names them, never trained on
    cache: bool = True  # see every picture once through the frozen encoders and train on what they saw

    def open(self, seed: int) -> tuple[Source, Source]:
        """The pictures to train on, and a few that are not (for the held-out loss)."""
        source = open_data(self.path, on_white=self.on_white)
        if not len(source):
            raise UserError(f"{self.path} holds no pictures: give a folder of pictures or .tar shards")
        train, held = hold_out(source, self.hold_out, seed) if self.hold_out else _every(source, 20)
        train = self._repeated(train)
        return Composed(train, self.compose * len(train), seed) if self.compose else train, held

    def _repeated(self, source: Source) -> Source:
        if not self.often:
            return source
        name, _, times = self.often.partition("=")
        if not times.isdigit() or int(times) < 1:
            raise UserError(f"--often {self.often!r} is not FIELD=TIMES: for example base=3")
        return Repeated(source, [int(times) if source.record(i).get(name) else 1 for i in range(len(source))])


def _every(source: Source, n: int) -> tuple[Source, Source]:
    """All but every n-th item, at most 64 of them, and those. A set too small to spare any is its own test."""
    held = list(range(0, len(source), n))[:64] if len(source) >= 2 * n else []
    kept = sorted(set(range(len(source))) - set(held))
    return Subset(source, kept), Subset(source, held or kept[:64])


def train(
    slug: str,
    data: Data,
    out: Path,
    plan: Plan,
    *,
    preset: str = "mini",
    base: Path | None = None,
    tensorboard: bool = False,
    name: str = "",
    on_step: OnStep = ignore,
    on_encode: OnStep = ignore,
    say: Callable[[str], None] = print,
) -> History:
    """Train a system on the pictures of `data` into `out`; start again with the same words to resume.

    `base` is a saved system whose frozen parts (codec, text encoder) are taken over; the shipped default
    if None. Leaves checkpoints, samples, log.jsonl and, at the end, `out/model`.
    """
    find(slug)
    if slug not in MAKERS:
        raise UserError(f"system {slug!r} cannot be trained from pictures yet: use {' or '.join(MAKERS)}")
    _make(out)
    source, held = data.open(plan.seed)
    torch.manual_seed(plan.seed)  # initial weights; the loop forks torch's generator for all the rest
    job = MAKERS[slug](data, source, preset, base)
    _remember(out / "train.json", {"system": slug, "preset": preset, "data": data.path.name, "seed": plan.seed, "size": data.size})
    chosen = ground(plan.device, plan.dtype)
    job.system.to(chosen.device)
    batches: Any = Batches(source, data.size, plan.batch, plan.seed, threads=2)
    held_batches: Any = Batches(held, data.size, min(64, len(held)), plan.seed)
    if data.cache and job.encode is not None:
        key = fingerprint(data, len(source), plan.seed, job.frozen)
        say(f"encoding {len(source)} pictures once (kept in {out / 'cache.safetensors'})")
        batches = encode(
            source, data.size, job.encode, batch=plan.batch, seed=plan.seed, cache=out / "cache.safetensors", key=key, on_step=on_encode
        )
    preview = _Preview(job, held_batches, out / "samples", plan.seed)
    trackers = ["tensorboard"] if tensorboard else []
    history = fit(job.system, Ahead(batches), plan, out, on_step=on_step, held_out=held_batches, preview=preview, trackers=trackers)
    job.finish(held_batches)
    job.system.save_pretrained(out / "model", name=name or out.name, steps=plan.steps, pictures=plan.steps * plan.batch * plan.accumulate)
    for key, reason in list(getattr(batches, "skipped", {}).items())[:10]:
        say(f"skipped {key}: {reason}")
    return history


@dataclass
class Job:
    """A system to train, and what the wiring needs to know of it."""

    system: System
    encode: Callable[..., Any] | None  # fills a batch with what frozen parts see; None where nothing is frozen
    frozen: str  # names the frozen parts' weights, for the cache
    sheet: Callable[[Any, Noise], torch.Tensor]  # a batch -> pictures (b, 4, h, w) to look at
    finish: Callable[[Batches], None]


def _flow(data: Data, source: Source, preset: str, base: Path | None) -> Job:
    if preset not in PRESETS:
        raise UserError(f"preset {preset!r} is not known: use {', '.join(PRESETS)}")
    folders = {part: _part(part, base) for part in ("codec", "text")}
    codec, text = ConvCodec.from_pretrained(folders["codec"]), SentenceEncoder.from_pretrained(folders["text"])
    if data.size % codec.config.stride:
        raise UserError(f"size {data.size} is not a multiple of {codec.config.stride}: use {data.size // codec.config.stride * codec.config.stride}")
    system = Flow.build(preset, codec, text, source.labels, data.size)

    def sheet(batch: Any, noise: Noise) -> torch.Tensor:
        styles = [system.styles[i] if i >= 0 else None for i in batch.label.tolist()]
        return system.sample(batch.text, styles, noise=noise)

    weights = [sha256(folder / "model.safetensors") for folder in folders.values()]
    return Job(system, torch.no_grad()(system.encode), fingerprint(*weights), sheet, lambda held: None)


def _part(name: str, base: Path | None) -> Path:
    """The part of `base`, or the shipped one where base has none."""
    return base / name if base is not None and (base / name).is_dir() else asset("default") / name


def _autoencoder(data: Data, source: Source, preset: str, base: Path | None) -> Job:
    system = Autoencoder(ConvCodec(ConvCodecConfig()))
    if data.size % system.codec.config.stride:
        raise UserError(f"size {data.size} is not a multiple of {system.codec.config.stride}: use another --size")
    return Job(system, None, "", lambda batch, noise: system.reconstruct(batch.image), lambda held: system.codec.normalise(held(0).image))


MAKERS: Mapping[str, Callable[..., Job]] = {"flow": _flow, "autoencoder": _autoencoder}


class _Preview:
    """A sheet of pictures for the first held-out captions, written now and then."""

    def __init__(self, job: Job, held: Batches, folder: Path, seed: int, n: int = 16):
        self.job, self.batch, self.folder = job, held(0), folder
        self.n, self.seed = min(n, len(self.batch)), seed

    def __call__(self, step: int) -> None:
        from diorama.pictures import sheet, to_pil  # Pillow only where there is something to draw

        rows = slice(0, self.n)
        batch = type(self.batch)(self.batch.image[rows], self.batch.text[rows], self.batch.label[rows])
        pictures = self.job.sheet(batch, Noise([self.seed + i for i in range(self.n)]))
        self.folder.mkdir(exist_ok=True)
        sheet(to_pil(pictures)).save(self.folder / f"step-{step:08d}.png")


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {out} ({error.strerror}): choose another --out") from None


def _remember(path: Path, run: dict[str, Any]) -> None:
    """The run's own words; resuming with others is a mistake worth a sentence."""
    if path.is_file() and (before := json.loads(path.read_text())) != run:
        changed = next(k for k in run if before.get(k) != run[k])
        raise UserError(
            f"{path.parent} was started with {changed} {before.get(changed)!r}, not {run[changed]!r}: use that to resume, or another --out"
        )
    write_json(path, run)


def weights_hash(folder: Path) -> str:
    """One sha256 over all weight files of a saved system, in name order."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*/model.safetensors")):
        digest.update(f"{path.parent.name} {sha256(path)}\n".encode())
    return digest.hexdigest()
