"""The one training loop: any system, one core or many machines, resumable at any moment.

What a step sees is a function of (seed, step, rank): the batch, the noise and torch's own generator. So a
run that was killed and resumed ends with the same weights, bit for bit, as one that was not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from diorama.errors import UserError
from diorama.networks.precision import ground
from diorama.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from diorama.training.ema import Ema
from diorama.training.plan import Plan
from diorama.types import Batch, Noise, OnStep, Step, ignore, mix

if TYPE_CHECKING:
    from accelerate import Accelerator


class Batches(Protocol):
    """Where batches come from: a pure function of the step, so that resuming seeks at once."""

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> Batch: ...


@dataclass(frozen=True)
class Phase:
    """One optimizer's share of a step. Most systems have one phase, a GAN has two."""

    name: str
    parameters: Sequence[nn.Parameter]
    loss: Callable[[Batch, Noise], Tensor]  # (b,)


class Trainable(Protocol):
    """What the loop asks of a system."""

    def phases(self) -> Sequence[Phase]: ...

    def after_backward(self, step: int, optimizers: Sequence[torch.optim.Optimizer]) -> None: ...

    def __call__(self, phase: int, batch: Batch, noise: Noise) -> Tensor: ...


@dataclass
class History:
    """What a run measured: one entry per logged step."""

    entries: list[dict[str, float]] = field(default_factory=list)
    skipped: int = 0  # non-finite steps

    @property
    def losses(self) -> list[float]:
        return [e["loss"] for e in self.entries if "loss" in e]


def fit(
    system: nn.Module,
    batches: Batches,
    plan: Plan,
    out: Path | None = None,
    *,
    on_step: OnStep = ignore,
    held_out: Batches | None = None,
    preview: Callable[[int], None] | None = None,
    trackers: Sequence[str] = (),
) -> History:
    """Train `system` in place for plan.steps steps; afterwards it holds the averaged weights.

    With `out` it resumes from the newest complete checkpoint there and leaves log.jsonl and checkpoints.
    `preview(step)` is called with the averaged weights in place; `held_out` gives the pictures of a smooth
    loss curve at fixed noise. Raises UserError when the loss stays non-finite.
    """
    run = _Run(system, batches, plan, out, held_out, trackers)
    return run.train(on_step, preview)


class _Run:
    """State of one call of `fit`."""

    def __init__(self, system: nn.Module, batches: Batches, plan: Plan, out: Path | None, held_out: Batches | None, trackers: Sequence[str]):
        self.plan, self.batches, self.held_out, self.out = plan, batches, held_out, out
        self.history, self.bad = History(), 0
        self.accelerator = _accelerator(plan, out, trackers)
        self.main = self.accelerator.is_main_process
        self.device = self.accelerator.device
        self.system = system.to(self.device)
        self.phases = system.phases()  # type: ignore[operator]
        optimizers = [
            torch.optim.AdamW(p.parameters, lr=plan.lr, betas=plan.betas, weight_decay=plan.weight_decay, fused=True) for p in self.phases
        ]
        self.ema = Ema(system, plan.ema)
        self.raw_optimizers = optimizers
        self.start = self._resume()
        self.model = self.accelerator.prepare(system)
        self.optimizers = [self.accelerator.prepare(o) for o in optimizers]
        self.forked = _ForkedGenerator(plan.seed, self.accelerator.process_index)

    def _resume(self) -> int:
        found = checkpoints(self.out / "checkpoints") if self.out else []
        if not found:
            return 0
        state = load_checkpoint(found[-1], self.system, self.ema, self.raw_optimizers)
        if state.get("seed") != self.plan.seed:
            raise UserError(f"{found[-1]} was trained with seed {state.get('seed')}, not {self.plan.seed}: use that seed or another --out")
        return int(str(state["step"]))

    def train(self, on_step: OnStep, preview: Callable[[int], None] | None) -> History:
        plan, saved, clock = self.plan, time.monotonic(), time.monotonic()
        if self.start >= plan.steps:
            self._finish(plan.steps)
            return self.history
        for step in range(self.start, plan.steps):
            values = self._step(step)
            now = time.monotonic()
            values["pictures_per_second"] = plan.batch * plan.accumulate * self.accelerator.num_processes / max(now - clock, 1e-9)
            clock = now
            done = step + 1
            if done % plan.sample_every == 0 or done == plan.steps:
                values |= self._look(done, preview)
                clock = time.monotonic()
            self._log(done, values)
            if self.main:
                on_step(Step(step, plan.steps, values=values))
            if self.out and done < plan.steps and self._due(now - saved):
                self._save(done)
                saved = clock = time.monotonic()
        self._finish(plan.steps)
        return self.history

    def _step(self, step: int) -> dict[str, float]:
        plan, rank, world = self.plan, self.accelerator.process_index, self.accelerator.num_processes
        values: dict[str, float] = {"lr": plan.rate(step)}
        with self.forked.at(step):
            for i, (phase, optimizer) in enumerate(zip(self.phases, self.optimizers, strict=True)):
                for group in optimizer.param_groups:
                    group["lr"] = plan.rate(step)
                total = 0.0
                for micro in range(plan.accumulate):
                    position = step * plan.accumulate + micro
                    batch = self.batches(position, rank, world)
                    noise = Noise.at(plan.seed, position, rank, n=len(batch), device=self.device)
                    with self.accelerator.no_sync(self.model) if micro + 1 < plan.accumulate else _nothing():
                        loss = self.model(i, batch, noise).mean() / plan.accumulate
                        self.accelerator.backward(loss)
                    total += loss.detach().item()
                norm = self.accelerator.clip_grad_norm_(phase.parameters, plan.clip)
                self._apply(step, optimizer, total, float(norm))
                values |= {"loss" if i == 0 else f"loss/{phase.name}": total, "gradient_norm": float(norm)}
        self.ema.update()
        return values

    def _apply(self, step: int, optimizer: Any, loss: float, norm: float) -> None:
        """Step the optimizer, or skip and count a step whose loss or gradient is not finite."""
        if all(map(_finite, (loss, norm))):
            self.system.after_backward(step, self.raw_optimizers)  # type: ignore[operator]
            optimizer.step()
            self.bad = 0
        else:
            self.bad += 1
            self.history.skipped += 1
            if self.bad >= self.plan.patience:
                raise UserError(f"the loss was not finite for {self.bad} steps in a row (step {step}): lower --lr or look at the data")
        optimizer.zero_grad(set_to_none=True)

    def _look(self, step: int, preview: Callable[[int], None] | None) -> dict[str, float]:
        """Held-out loss at fixed pictures, noise and levels, and a preview, both with the averaged weights."""
        values: dict[str, float] = {}
        with self.ema.applied(), torch.no_grad():
            self.system.eval()
            if self.held_out is not None:
                batch = self.held_out(0)
                with self.accelerator.autocast():
                    loss = self.system(0, batch, Noise.at(self.plan.seed, -1, n=len(batch), device=self.device))
                values["held_out_loss"] = loss.mean().item()
            if preview is not None and self.main:
                preview(step)
            self.system.train()
        return values

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        self.history.entries.append({"step": step, **values})
        if self.main and self.out and (step % 10 == 0 or "held_out_loss" in values):
            with open(self.out / "log.jsonl", "a") as log:
                log.write(json.dumps({"step": step, **values}) + "\n")
            self.accelerator.log(dict(values), step=step)

    def _due(self, elapsed: float) -> bool:
        """Whether to save now; the main process decides for all, whose clocks differ."""
        due = torch.tensor(float(elapsed >= 60 * self.plan.save_minutes), device=self.device)
        if self.accelerator.num_processes > 1:
            torch.distributed.broadcast(due, 0)
        return bool(due)

    def _save(self, step: int) -> None:
        if self.main and self.out:
            save_checkpoint(
                self.out / "checkpoints", step, self.system, self.ema, self.raw_optimizers, self.plan.keep, seed=self.plan.seed, plan=asdict(self.plan)
            )
        self.accelerator.wait_for_everyone()

    def _finish(self, step: int) -> None:
        if self.start < step:
            self._save(step)
        self.ema._swap()
        self.system.eval()
        self.accelerator.end_training()


def _accelerator(plan: Plan, out: Path | None, trackers: Sequence[str]) -> Accelerator:
    from accelerate import Accelerator  # 1.2 s to import: only where training begins

    chosen = ground(plan.device, plan.dtype)
    accelerator = Accelerator(
        cpu=chosen.device.type == "cpu",
        mixed_precision="bf16" if chosen.dtype == torch.bfloat16 else "no",
        log_with=list(trackers) or None,
        project_dir=str(out) if out else None,
    )
    if trackers:
        accelerator.init_trackers("diorama")
    return accelerator


class _ForkedGenerator:
    """torch's own generator (dropout), seeded from (seed, step, rank) inside and restored outside."""

    def __init__(self, seed: int, rank: int):
        self.seed, self.rank = seed, rank

    def at(self, step: int) -> _ForkedGenerator:
        self.step = step
        return self

    def __enter__(self) -> None:
        self.fork = torch.random.fork_rng()
        self.fork.__enter__()
        torch.manual_seed(mix(self.seed, self.step, self.rank))

    def __exit__(self, *error: Any) -> None:
        self.fork.__exit__(*error)


class _nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *error: Any) -> None: ...


def _finite(value: float) -> bool:
    return abs(value) < float("inf")
