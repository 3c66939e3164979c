"""How each foundation model learns and, where nobody says, paints. Apart from what it is: a claim reads of that, and never of this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diorama.training.plan import Plan


def _plan(steps: int, batch: int = 64, lr: float = 1e-3, **more: Any) -> Plan:
    return Plan(
        **{"steps": steps, "batch": batch, "lr": lr, "warmup": 100, "decay": 0.4, "ema": 0.998, "sample_every": 500} | more
    )


_PAINTER: Mapping[str, Any] = {"batch": 32, "lr": 1.5e-3, "ema": 0.999}

PLANS: Mapping[str, Plan] = {
    "world-codec-f2": _plan(500, 32),
    "world-codec-f4": _plan(700, 32),
    "world-codec-f8": _plan(1200, 32),
    "world-codec-f16": _plan(900, 32),
    "world-vq": _plan(900),
    "world-clip": _plan(4600, 96, decay=0.5),
    "world-scorer": _plan(4600, 96, decay=0.5, seed=1),
    "world-flow": _plan(10000, **_PAINTER),
    "world-views": _plan(2500, **_PAINTER),
    "world-classes": _plan(14000, **_PAINTER),
    "world-noisy": _plan(1200),
    "world-tokens": _plan(2500),
    "world-features": _plan(2400, lr=3e-3),
    "world-motion": _plan(1200, 32, lr=2e-3),
    "world-video": _plan(2000, 8, lr=2e-3),
    "world-vit": _plan(2500),
    "world-sam": _plan(1000, 16),
}

# as a model's index names them; pressed by 4, as larger models are, world-flow paints a third thing beside two
DEFAULTS: Mapping[str, Mapping[str, Any]] = {"world-flow": {"guidance": 2.5, "solver": "dpmpp_2m"}}
