"""How to train, as plain data: every field is a command line flag. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to train. Every field is a command line flag."""

    steps: int = 10_000
    batch: int = 32  # pictures per step and process
    seed: int = 0
    lr: float = 6e-4
    warmup: int = 200  # steps of linear warm-up
    decay: float = 0.25  # last share of the steps, over which the learning rate falls linearly to zero
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0  # gradient norm; 0 does not clip
    accumulate: int = 1  # batches per optimizer step
    ema: float = 0.999
    save_minutes: float = 5.0  # minutes between checkpoints
    sample_every: int = 1000  # steps between previews and held-out losses
    log_every: int = 10  # steps between lines of log.jsonl
    keep: int = 2  # checkpoints kept
    patience: int = 5  # non-finite steps in a row before giving up
    device: str = "auto"
    dtype: str = "auto"

    def rate(self, step: int) -> float:
        """The learning rate at a step: trapezoid of warm-up, plateau and linear decay (Zhai et al. 2022, sec. 3.5)."""
        falling = max(1, round(self.decay * self.steps))
        return self.lr * min(1.0, (step + 1) / max(1, self.warmup), (self.steps - step) / falling)
