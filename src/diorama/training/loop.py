"""The one training loop: any system, one core or many machines, resumable at any moment.

What a step sees is a function of (seed, step, rank): the batch, the noise and torch's own generator. So a
run that was killed and resumed ends with the same weights, bit for bit, as one that was not. Data and noise
are counted by sample, so two processes, or two accumulated batches, see what one batch of twice the size sees.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from diorama.errors import UserError
from diorama.files import append, atomic_file
from diorama.networks.precision import ground
from diorama.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from diorama.training.ema import Ema
from diorama.training.plan import Plan
from diorama.types import Batch, Noise, OnStep, Step, ignore, mix

if TYPE_CHECKING:
    from accelerate import Accelerator


class BatchAt(Protocol):
    """Where batches come from: a pure function of the step, so that resuming seeks at once."""

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> Batch: ...


@dataclass(frozen=True)
class Phase:
    """One optimizer's share of a step. Most systems have one phase, a GAN has two."""

    name: str
    parameters: Sequence[nn.Parameter]
    loss: Callable[[Batch, Noise], Tensor]  # (b,)
    options: Sequence[Mapping[str, Any]] = ()  # where given, one for each parameter: of AdamW, and `scale`, of the learning rate


class Trainable(Protocol):
    """What the loop asks of a system."""

    def phases(self) -> Sequence[Phase]: ...

    def after_backward(self, step: int, optimizers: Sequence[torch.optim.Optimizer]) -> None: ...

    def __call__(self, phase: int, batch: Batch, noise: Noise) -> Tensor: ...


@dataclass
class History:
    """What a run measured: one entry per logged step, those of before a resume included."""

    entries: list[dict[str, float]] = field(default_factory=list)
    skipped: int = 0  # steps left out because loss or gradient was not finite, since the resume

    @property
    def losses(self) -> list[float]:
        return [e["loss"] for e in self.entries if "loss" in e]


def fit(
    system: nn.Module,
    batches: BatchAt,
    plan: Plan,
    out: Path | None = None,
    *,
    on_step: OnStep = ignore,
    held_out: BatchAt | None = None,
    preview: Callable[[int], None] | None = None,
    trackers: Sequence[str] = (),
) -> History:
    """Train `system` in place for plan.steps steps; afterwards it holds the averaged weights.

    With `out` it resumes from the newest complete checkpoint there and leaves log.jsonl and checkpoints.
    `preview(step)` is called with the averaged weights in place; `held_out` gives the pictures of a smooth
    loss curve at fixed noise. Raises UserError when the loss stays non-finite. With `out`, SIGINT and SIGTERM let the step
    end and be saved before KeyboardInterrupt says so; a second one does not wait.
    """
    run = _Run(system, batches, plan, out, held_out, trackers)
    try:
        with _signals(kept=out is not None) as asked:
            return run.train(on_step, preview, asked)
    finally:
        for tracker in run.accelerator.trackers:
            tracker.finish()


@contextmanager
def main_first(plan: Plan) -> Iterator[bool]:
    """Inside, the main process goes first and the others then find what it left; gives whether this is the main one."""
    accelerator = _accelerator(plan)
    with accelerator.main_process_first():
        yield accelerator.is_main_process


class _Run:
    """State of one call of `fit`."""

    def __init__(
        self, system: nn.Module, batches: BatchAt, plan: Plan, out: Path | None, held_out: BatchAt | None, trackers: Sequence[str]
    ):
        self.plan, self.batches, self.held_out, self.out = plan, batches, held_out, out
        self.accelerator = _accelerator(plan, out, trackers, partial=len(system.phases()) > 1)  # type: ignore[operator]
        self.main = self.accelerator.is_main_process
        self.place = self.accelerator.process_index, self.accelerator.num_processes
        self.ground = ground(plan.device, plan.dtype)
        self.device = self.ground.device if self.place[1] == 1 else self.accelerator.device
        self.system = system.to(self.device).train()
        self.model = self.accelerator.prepare(system)  # every process now has the main one's weights
        self.phases: Sequence[Phase] = system.phases()  # type: ignore[operator]
        self.optimizers = [_adamw(phase, plan, self.device) for phase in self.phases]
        self.ema = Ema(system, plan.ema)
        self.history, self.bad = History(), 0
        self.start = self._resume()
        if trackers:
            self.accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": self.start + 1}})

    def _resume(self) -> int:
        """Take up the newest checkpoint and what was logged until then; the step to go on with."""
        if self.out is None:
            return 0
        self.out.mkdir(parents=True, exist_ok=True)
        start, found = 0, checkpoints(self.out / "checkpoints")
        if found:
            state = load_checkpoint(found[-1], self.system, self.ema, self.optimizers)
            if state.get("seed") != self.plan.seed:
                other = f"{found[-1]} was trained with seed {state.get('seed')}, not {self.plan.seed}"
                raise UserError(f"{other}: use that seed or another --out")
            start = int(state["step"])
        self.history.entries = [entry for entry in _read_log(self.out / "log.jsonl") if entry["step"] <= start]
        if self.main:
            with atomic_file(self.out / "log.jsonl") as new:
                new.write_text("".join(json.dumps(entry) + "\n" for entry in self.history.entries))
        return start

    def train(self, on_step: OnStep, preview: Callable[[int], None] | None, asked: Sequence[int]) -> History:
        plan, saved = self.plan, time.monotonic()
        for step in range(self.start, plan.steps):
            done, clock = step + 1, time.monotonic()
            values = self._step(step)
            values["pictures_per_second"] = plan.batch * plan.accumulate * self.place[1] / (time.monotonic() - clock)
            if done % plan.sample_every == 0 or done == plan.steps:
                values |= self._look(done, preview)
            if done % plan.log_every == 0 or "held_out_loss" in values or done == plan.steps:
                self._log(done, values)
            if self.main:
                on_step(Step(step, plan.steps, values=values))
            due, stop = self._agreed(time.monotonic() - saved >= 60 * plan.save_minutes and self.main, bool(asked))
            if due or stop or done == plan.steps:
                self._save(done)
                saved = time.monotonic()
            if stop and done < plan.steps:
                raise KeyboardInterrupt(f"step {done} of {plan.steps} is saved, and the same command goes on from there")
        self.ema.swap()
        self.system.eval()
        return self.history

    def _step(self, step: int) -> dict[str, float]:
        """One gradient and one update per phase, or none where loss or gradient is not finite."""
        plan, finite = self.plan, True
        values = {"lr": plan.rate(step)}
        with _seeded(self.device, plan.seed, step, self.place[0]):
            for i, (phase, optimizer) in enumerate(zip(self.phases, self.optimizers, strict=True)):
                loss = self._gradient(i, step)
                norm = clip_grad_norm_(phase.parameters, plan.clip or math.inf).item()
                values |= {name if i == 0 else f"{name}/{phase.name}": v for name, v in (("loss", loss), ("gradient_norm", norm))}
                if math.isfinite(loss) and math.isfinite(norm):
                    self.system.after_backward(step, self.optimizers)  # type: ignore[operator]
                    for group in optimizer.param_groups:
                        group["lr"] = values["lr"] * group.get("scale", 1.0)
                    optimizer.step()
                else:
                    finite = False
                self.system.zero_grad(set_to_none=True)  # all: a phase's gradient reaches the other phases' parameters too
        self._count(step, finite)
        self.ema.update()
        return values

    def _gradient(self, phase: int, step: int) -> float:
        """Leaves the gradient of the mean loss over all batches of the step and all processes; that loss."""
        plan, total = self.plan, torch.zeros((), device=self.device)
        for micro in range(plan.accumulate):
            position, last = step * plan.accumulate + micro, micro + 1 == plan.accumulate
            batch = self.batches(position, *self.place)
            noise = Noise.at(plan.seed, position, *self.place, n=len(batch), device=self.device)
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                with self.ground.autocast():
                    loss = self.model(phase, batch, noise).float().mean() / plan.accumulate
                loss.backward()
            total += loss.detach()
        return self.accelerator.reduce(total, "mean").item()

    def _count(self, step: int, finite: bool) -> None:
        self.bad = 0 if finite else self.bad + 1
        self.history.skipped += not finite
        if self.bad >= self.plan.patience:
            said = f"the loss was not finite for {self.bad} steps in a row (step {step})"
            raise UserError(f"{said}: lower --lr or look at the data")

    def _look(self, step: int, preview: Callable[[int], None] | None) -> dict[str, float]:
        """Held-out loss at fixed pictures, noise and levels, and a preview, both with the averaged weights."""
        values: dict[str, float] = {}
        self.system.eval()
        with self.ema.applied(), torch.no_grad(), self.ground.autocast():
            if self.held_out is not None:
                batch = self.held_out(0)
                loss = self.system(0, batch, Noise.at(self.plan.seed, -1, n=len(batch), device=self.device))
                values["held_out_loss"] = loss.float().mean().item()
            if preview is not None and self.main:
                preview(step)
        self.system.train()
        return values

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        finite = {name: value for name, value in values.items() if math.isfinite(value)}  # JSON knows no infinity
        entry = {"step": step, **finite}
        self.history.entries.append(entry)
        if self.main and self.out:
            append(self.out / "log.jsonl", json.dumps(entry) + "\n")
        self.accelerator.log(dict(values), step=step)

    def _agreed(self, *mine: bool) -> list[bool]:
        """For each of these, whether it holds in any process: clocks differ, and a signal may reach only one."""
        held = torch.tensor(mine, dtype=torch.uint8, device=self.device)
        if self.place[1] > 1:
            torch.distributed.all_reduce(held, torch.distributed.ReduceOp.MAX)
        return [bool(one) for one in held]

    def _save(self, step: int) -> None:
        if self.main and self.out:
            state = {"seed": self.plan.seed, "plan": asdict(self.plan)}
            save_checkpoint(self.out / "checkpoints", step, self.system, self.ema, self.optimizers, self.plan.keep, **state)
        self.accelerator.wait_for_everyone()


def _adamw(phase: Phase, plan: Plan, device: torch.device) -> torch.optim.Optimizer:
    fused = device.type in ("cpu", "cuda")
    own = [{"params": [p], **options} for p, options in zip(phase.parameters, phase.options, strict=bool(phase.options))]
    return torch.optim.AdamW(own or phase.parameters, lr=plan.lr, betas=plan.betas, weight_decay=plan.weight_decay, fused=fused)


def _accelerator(plan: Plan, out: Path | None = None, trackers: Sequence[str] = (), partial: bool = False) -> Accelerator:
    """The processes of this run: one, or as many as were launched. Precision is not its business but `ground`'s.

    `partial`: a loss may leave parameters without a gradient, as each of several phases does.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs  # 1.2 s: only where training begins
    from accelerate.state import AcceleratorState

    check_trackers(trackers)
    if not torch.distributed.is_initialized():
        AcceleratorState._reset_state(reset_partial_state=True)  # else the first run's device holds for all that follow
    return Accelerator(
        cpu=ground(plan.device, plan.dtype).device.type == "cpu",
        mixed_precision="no",
        device_placement=False,
        log_with=list(trackers) or None,
        project_dir=out,
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=partial),
            InitProcessGroupKwargs(timeout=timedelta(hours=12)),  # the others wait while the main one encodes the data
        ],
    )


def check_trackers(trackers: Sequence[str]) -> None:
    """Raises UserError where one of them is not installed."""
    from accelerate.tracking import get_available_trackers

    if missing := set(trackers) - {str(name) for name in get_available_trackers()}:
        raise UserError(f"tracker {min(missing)!r} is not installed: pip install {min(missing)}")


def _read_log(path: Path) -> list[dict[str, float]]:
    """The entries there; a last line that a killed process left half written is none."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}\n")]


@contextmanager
def _signals(kept: bool) -> Iterator[list[int]]:
    """The signals that asked this process to end: inside, the first of SIGINT and SIGTERM is only kept, a second interrupts.

    Unless `kept`, and outside the main thread, which alone may say what signals do, all is as it was.
    """
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt

    mine = kept and threading.current_thread() is threading.main_thread()
    heeded = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) not in (None, signal.SIG_IGN)]
    before = {number: signal.signal(number, ask) for number in heeded if mine}
    try:
        yield asked
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def _seeded(device: torch.device, *numbers: int) -> Iterator[None]:
    """torch's own generator (dropout) seeded from these numbers inside, as it was outside."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(mix(*numbers))
        yield
