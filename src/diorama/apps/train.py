"""`diorama train`: a system on your own pictures."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from diorama.apps.flags import flag
from diorama.apps.output import find_model, steps_bar, use_all_cores
from diorama.cards import find
from diorama.errors import UserError
from diorama.models import index_of
from diorama.recipe import SIZES
from diorama.training.plan import Plan

if TYPE_CHECKING:
    from diorama.sources import Anything

QUIET = 30.0  # seconds between lines where there is no terminal


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a system on pictures with captions. The same command again goes on where it stopped.

    Recognised: folders of pictures, class folders, metadata.jsonl|csv|parquet, name.png beside name.txt, webdataset .tar shards.
    For systems that make clips: the same with .gif, .webp, .png animations, and films where the package av is there.
    """

    system: Annotated[tyro.conf.Positional[str], flag("SYSTEM")]
    """Which one: flow, autoencoder; see `diorama systems`."""
    data: Annotated[str, flag("PATH|world")]
    """The folder or shards of pictures; `world` is the miniature world, whose pictures are made as they are needed."""
    out: Annotated[str, flag("DIR", "-o")]
    """Where checkpoints, samples, the log and at the end the model go."""
    preset: Annotated[str | None, flag("NAME")] = None
    """How large: one of those that `diorama show SYSTEM` lists; mini where not given."""
    base: Annotated[tuple[str, ...], flag("NAME|DIR ...")] = ()
    """Saved models whose frozen parts (codec, text encoder) are taken over, each from the first that has it; else shipped ones."""
    start: Annotated[str | None, flag("NAME|DIR")] = None
    """A saved model of this system to go on from, all of it: fine-tuning. Its preset and labels stay."""
    size: Annotated[int | None, flag("INT")] = None
    """Pixels along a side; 128 where not given, or as many as the model of --start has."""
    on_white: Annotated[bool, flag()] = False
    """The pictures' RGB is already laid on white, alpha is only a mask."""
    compose: int = 0
    """Composed pictures (recoloured, side by side, small, on a ground) per picture, where alpha is known."""
    often: Annotated[str, flag("FIELD=TIMES")] = ""
    """Pictures whose metadata field is true are seen that many times as often."""
    frames: int = 8
    """Of a clip, for systems that make clips; shorter ones are left out."""
    hold_out: float = 0.0
    """Share of (concept, style) combinations never trained on; in the world, of (colour, shape) pairs."""
    cache: Annotated[bool, flag()] = True
    """Encode every batch again instead of every picture once."""
    name: Annotated[str, flag("NAME")] = ""
    """What the trained model is called; the last part of --out where not given."""
    tensorboard: Annotated[bool, flag()] = False
    """Log to TensorBoard in --out."""
    plan: Plan = field(default_factory=Plan)

    def run(self) -> int:
        self._check()
        from diorama.train import train  # torch, from here on

        use_all_cores()
        start = None if self.start is None else find_model(self.start)
        data, bases = self._data(start), self._bases()
        if start and self.plan.lr == Plan.lr:
            say(f"the learning rate {Plan.lr:g} is for a start from nothing: --lr 1e-5 to 1e-4 forgets less")
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's way to say Control-C
        try:
            with steps_bar("encoding") as on_encode, progress(self.plan) as on_step:
                train(
                    self.system,
                    data,
                    Path(self.out),
                    self.plan,
                    preset=self.preset or "mini",
                    base=bases,
                    start=start,
                    tensorboard=self.tensorboard,
                    name=self.name,
                    on_step=on_step,
                    on_encode=on_encode,
                    say=say,
                )
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(str(error) or self._kept()) from None
        if os.environ.get("RANK", "0") == "0":  # accelerate starts one such process per core or device
            print(Path(self.out) / "model")
        return 0

    def _kept(self) -> str:
        from diorama.training.checkpoint import checkpoints

        saved = checkpoints(Path(self.out) / "checkpoints")
        return "the same command goes on from the newest checkpoint" if saved else "no step was saved yet"

    def _check(self) -> None:
        plan, presets = self.plan, find(self.system).presets
        if (self.data == "world" or find(self.system).family == "video") and (self.on_white or self.compose or self.often):
            raise UserError("--on-white, --compose and --often are for pictures of your own: leave them out")
        if presets and (self.preset or "mini") not in presets:
            raise UserError(f"preset {self.preset or 'mini'!r} of {self.system} is not known: use {', '.join(presets)}")
        if self.start is not None and (given := "--preset" if self.preset else "--base" if self.base else ""):
            raise UserError(f"{given} is the model's own where one is gone on from: leave it out, or --start")
        whole = {
            "steps": plan.steps,
            "batch": plan.batch,
            "accumulate": plan.accumulate,
            "sample-every": plan.sample_every,
            "log-every": plan.log_every,
            "keep": plan.keep,
            "patience": plan.patience,
            "frames": self.frames,
        }
        if bad := next((name for name, value in whole.items() if value < 1), None):
            raise UserError(f"{bad} {whole[bad]} is not allowed: use 1 or more")
        if self.size is not None and self.size not in SIZES:  # what a sampler may be asked for
            raise UserError(f"size {self.size} is not allowed: use {SIZES.start} to {SIZES.stop - 1} pixels")
        least = {
            "seed": plan.seed,
            "compose": self.compose,
            "warmup": plan.warmup,
            "clip": plan.clip,
            "weight-decay": plan.weight_decay,
        }
        if low := next((name for name, value in least.items() if not value >= 0), None):
            raise UserError(f"{low} {least[low]} is not allowed: use 0 or more")
        for name, value in (("ema", plan.ema), *(("betas", beta) for beta in plan.betas)):
            if not 0 <= value < 1:
                raise UserError(f"{name} {value} is not allowed: use 0 or more, below 1")
        if not 0 < plan.lr < float("inf"):
            raise UserError(f"lr {plan.lr} is not allowed: use a number above 0, such as 6e-4")

    def _data(self, start: Path | None) -> Anything:
        from diorama.sources import Clips, Data, Films, Worlds

        size = self._size(start)
        if find(self.system).family == "video":
            if self.data != "world":
                return Films(path=Path(self.data), size=size, frames=self.frames)
            # the words of pictures: of what goes on in a clip a frozen tower never read
            return Clips(size=size, rules={"frames": self.frames}, form="still", hold_out=self.hold_out)
        if self.data == "world":
            return Worlds(size=size, hold_out=self.hold_out)
        return Data(
            path=Path(self.data),
            on_white=self.on_white,
            size=size,
            compose=self.compose,
            often=self.often,
            hold_out=self.hold_out,
            cache=self.cache,
        )

    def _size(self, start: Path | None) -> int:
        """As asked; else as the model has it that is gone on from."""
        if self.size is not None or start is None:
            return 128 if self.size is None else self.size
        index = index_of(start)
        return int(index.get("settings", {}).get("size") or index.get("size") or 128)

    def _bases(self) -> list[Path]:
        return [Path(name) if _holds_parts(name) else find_model(name) for name in self.base]


def _holds_parts(folder: str) -> bool:
    """Whether parts lie there, of a saved model or without one."""
    return os.path.isdir(folder) and any(Path(folder).glob("*/config.json"))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(plan: Plan) -> Iterator[Callable[[Any], None]]:
    """Loss, throughput and time left: a bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty())
    task, mean = bar.add_task("", total=plan.steps, start=False), _Mean()

    def on_step(step: Any) -> None:
        bar.start()  # not before: the pictures may have to be encoded first, under a bar of their own
        bar.start_task(task)
        bar.update(task, completed=step.index + 1, description=mean(step.values))

    try:
        yield on_step
    finally:
        bar.stop()


class _Mean:
    """Numbers of the last steps, smoothed enough to read."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def __call__(self, values: Mapping[str, float]) -> str:
        for name in ("loss", "pictures_per_second"):
            if name in values:
                self.values[name] = 0.95 * self.values.get(name, values[name]) + 0.05 * values[name]
        self.values |= {name: value for name, value in values.items() if name == "held_out_loss"}
        words = {"loss": "loss {:.4f}", "held_out_loss": "held out {:.4f}", "pictures_per_second": "{:.1f} pictures/s"}
        return "  ".join(form.format(self.values[name]) for name, form in words.items() if name in self.values)


class _Lines:
    """One line every half minute and whenever the held-out loss is known."""

    def __init__(self) -> None:
        self.mean, self.said, self.began, self.first = _Mean(), 0.0, time.monotonic(), -1

    def __call__(self, step: Any) -> None:
        words, now = self.mean(step.values), time.monotonic()
        if self.first < 0:
            self.first, self.began = step.index, now
        if now - self.said < QUIET and "held_out_loss" not in step.values:
            return
        self.said, done = now, step.index - self.first
        left = (now - self.began) / done * (step.n - 1 - step.index) if done else 0.0
        say(f"step {step.index + 1}/{step.n}  {words}" + (f"  {left / 60:.0f} min left" if done else ""))


__all__ = ["Train"]
