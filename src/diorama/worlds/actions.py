"""What figures do: walk, wave, jump, sit and turn, as smooth functions of time, with legs that reach for where the feet stand.

Seconds and metres. Feet are placed first; hips and knees follow by the law of cosines, so a standing foot stays where it is.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diorama.errors import UserError
from diorama.types import mix
from diorama.worlds.figures import ANKLE, NUMBER, SHIN, THIGH, Figure, Posed, forward, offsets

GRAVITY = 9.81
REACH = 0.985  # of a stretched leg: knees are never quite straight


@dataclass(frozen=True)
class Motion:
    """An action of one figure over t frames."""

    action: str
    angles: Tensor  # (t, 17, 3) rotation vectors, as `figures.forward` takes them
    root: Tensor  # (t, 3) of the pelvis
    posed: Posed  # joints (t, 17, 3) and their turns
    rate: float  # frames a second
    period: float  # seconds after which it begins anew; sitting down ends there and stays


class _Body:
    """The joints of one figure over the moments of a motion: named angles are set, legs are bent to reach the feet."""

    def __init__(self, figure: Figure, frames: int):
        self.leg = (figure.height * figure.legs * THIGH, figure.height * figure.legs * SHIN)
        self.ankle = figure.height * ANKLE
        self.top = self.ankle + REACH * sum(self.leg)  # of the pelvis, standing
        self.angles = torch.zeros(frames, len(NUMBER), 3)
        self.root = torch.zeros(frames, 3)
        self.root[:, 2] = self.top

    def turn(self, joint: str, axis: str, radians: Tensor | float) -> None:
        """Turn a joint about its parent's x (the figure's left), y (behind it) or z (up)."""
        self.angles[:, NUMBER[joint], "xyz".index(axis)] = torch.as_tensor(radians)

    def stand(self, side: str, ahead: Tensor | float = 0.0, up: Tensor | float = 0.0) -> None:
        """Put the foot `ahead` of the hip and `up` above the ground, level: the knee gives way forwards."""
        thigh, shin = self.leg
        ahead, down = torch.as_tensor(ahead), self.root[:, 2] - self.ankle - up
        far = torch.hypot(ahead, down)
        bend = math.pi - torch.arccos((thigh**2 + shin**2 - far**2) / (2 * thigh * shin))
        hip = torch.atan2(ahead, down) + torch.arccos((thigh**2 + far**2 - shin**2) / (2 * thigh * far))
        self.turn(f"{side} hip", "x", -hip)  # a turn about +x swings a hanging limb backwards
        self.turn(f"{side} knee", "x", bend)
        self.turn(f"{side} ankle", "x", hip - bend)


def act(figure: Figure, action: str, frames: int, seed: int = 0, rate: float = 16.0) -> Motion:
    """The figure doing it for `frames` frames at `rate` a second; another seed does it a little otherwise.

    Raises UserError for an unknown action, no frames or no rate.
    """
    if action not in ACTIONS:
        raise UserError(f"action {action!r} is not known: use {', '.join(ACTIONS)}")
    if frames < 1 or not rate > 0:
        raise UserError(f"{frames} frames at {rate:g} a second are no motion: use 1 or more of each")
    rng = random.Random(mix(figure.seed, figure.index, seed, tuple(ACTIONS).index(action)))
    seconds, body = torch.arange(frames, dtype=torch.float64) / rate, _Body(figure, frames)
    period = ACTIONS[action](body, seconds, rng)
    return Motion(action, body.angles, body.root, forward(offsets([figure]), body.angles, body.root), rate, period)


def spline(seconds: Tensor, knots: Sequence[tuple[float, float, float]]) -> Tensor:
    """Cubic Hermite curve through knots (second, value, slope), held before the first and after the last.

    Between knots whose values and slopes are a parabola's, it is that parabola.
    """
    when, value, slope = torch.tensor(knots, dtype=torch.float64).T.contiguous()
    at = seconds.clamp(when[0], when[-1])
    i = (torch.searchsorted(when, at, right=True) - 1).clamp(0, len(knots) - 2)
    wide = when[i + 1] - when[i]
    s = (at - when[i]) / wide
    rise = value[i] + (value[i + 1] - value[i]) * s * s * (3 - 2 * s)
    return rise + wide * s * (1 - s) * (slope[i] * (1 - s) - slope[i + 1] * s)


def _vary(rng: random.Random, middle: float, by: float = 0.12) -> float:
    return middle * (1 + by * (2 * rng.random() - 1))


def _wave_of(phase: Tensor) -> Tensor:
    return torch.sin(2 * math.pi * phase)


# --- the actions: each sets the body's angles and returns its period -------------------------------


def _walk(body: _Body, seconds: Tensor, rng: random.Random) -> float:
    """Each foot stands for half of the cycle, while the pelvis passes over it, and swings for the other half."""
    period, stride = _vary(rng, 1.1), _vary(rng, 1.1) * sum(body.leg)
    swing, bend = _vary(rng, 0.45, 0.3), _vary(rng, 0.35, 0.3)
    phase = seconds / period
    half = stride / 4  # how far ahead of the hip a foot lands: it stands while the body goes half a stride
    low = body.ankle + math.sqrt((REACH * sum(body.leg)) ** 2 - half**2)
    body.root[:, 1] = -stride * phase
    body.root[:, 2] = low + 0.3 * (body.top - low) * (1 - torch.cos(4 * math.pi * phase))  # highest over the standing foot
    for side, lag in (("right", 0.0), ("left", 0.5)):
        own = torch.remainder(phase + lag, 1.0)
        s = (2 * own - 1).clamp(min=0)  # through the swing
        back_to_front = half * (1 - 4 * own)  # standing: the body moves on
        carried = spline(s, ((0.0, -half, -2 * half), (1.0, half, -2 * half)))
        body.stand(side, torch.where(own < 0.5, back_to_front, carried), 0.1 * stride * torch.sin(math.pi * s) ** 2)
        body.turn(f"{side} shoulder", "x", swing * torch.cos(2 * math.pi * phase + 2 * math.pi * lag))
        body.turn(f"{side} elbow", "x", -bend)
    body.turn("spine", "z", 0.12 * torch.cos(2 * math.pi * phase))
    return period


def _wave(body: _Body, seconds: Tensor, rng: random.Random) -> float:
    """One forearm swings beside the head; the other arm hangs."""
    period, raised, wide = _vary(rng, 0.8), _vary(rng, 1.9, 0.1), _vary(rng, 0.45, 0.25)
    side, sign = ("right", 1) if rng.random() < 0.5 else ("left", -1)
    body.turn(f"{side} shoulder", "y", sign * raised)
    body.turn(f"{side} elbow", "y", sign * (0.75 + wide * _wave_of(seconds / period)))
    other = "left" if side == "right" else "right"
    body.turn(f"{other} shoulder", "y", -sign * 0.12)
    body.turn("neck", "y", sign * 0.08 * _wave_of(seconds / period))
    _stand_still(body)
    return period


def _jump(body: _Body, seconds: Tensor, rng: random.Random) -> float:
    """Crouch, push off, fly and land; the flight is a parabola under gravity."""
    crouch, high = 0.3 * sum(body.leg), _vary(rng, 0.3)
    speed = math.sqrt(2 * GRAVITY * high)
    off, flight = 0.75, 2 * speed / GRAVITY
    down = off + flight
    period = down + 0.9
    now = torch.remainder(seconds, period)
    knots = (
        (0, 0, 0),
        (off - 0.25, -crouch, 0),
        (off, 0, speed),
        (down, 0, -speed),
        (down + 0.22, -0.8 * crouch, 0),
        (period, 0, 0),
    )
    height = spline(now, knots)
    arms = spline(now, ((0, 0, 0), (off - 0.25, 0.8, 0), (off + 0.2, -2.3, 0), (down, -1.6, 2), (period, 0, 0)))
    body.root[:, 2] = body.top + height
    _stand_still(body, height.clamp(min=0))
    for side in ("right", "left"):
        body.turn(f"{side} shoulder", "x", arms)
    lean = (-height / crouch).clamp(min=0)
    body.turn("spine", "x", 0.35 * lean)
    return period


def _sit(body: _Body, seconds: Tensor, rng: random.Random) -> float:
    """Down onto a seat behind it, in `period` seconds, and stay there; the feet stay where they are."""
    period, lean = _vary(rng, 1.4), _vary(rng, 0.5)
    thigh, shin = body.leg
    sat = spline(seconds, ((0, 0, 0), (period, 1, 0)))
    back = sat * 0.95 * thigh
    body.root[:, 1] = back
    body.root[:, 2] = torch.lerp(torch.full_like(sat, body.top), torch.full_like(sat, body.ankle + 1.02 * shin), sat)
    for side in ("right", "left"):
        body.stand(side, back)
        body.turn(f"{side} shoulder", "x", -0.55 * sat)
        body.turn(f"{side} elbow", "x", -0.6 * sat)
    body.turn("spine", "x", lean * torch.sin(math.pi * sat))
    return period


def _turn(body: _Body, seconds: Tensor, rng: random.Random) -> float:
    """Once about itself in a period, on the spot, in small steps."""
    period, steps = _vary(rng, 3.2), 4
    way = 1 if rng.random() < 0.5 else -1
    body.turn("pelvis", "z", way * 2 * math.pi * torch.remainder(seconds / period, 1.0))
    for side, lag in (("right", 0.0), ("left", 0.5)):
        body.stand(side, up=0.06 * _wave_of(seconds / period * steps + lag).clamp(min=0) ** 2)
        body.turn(f"{side} shoulder", "y", 0.12 if side == "right" else -0.12)
    return period


def _stand_still(body: _Body, up: Tensor | float = 0.0) -> None:
    for side in ("right", "left"):
        body.stand(side, up=up)


ACTIONS: dict[str, Callable[[_Body, Tensor, random.Random], float]] = {
    "walk": _walk,
    "wave": _wave,
    "jump": _jump,
    "sit": _sit,
    "turn": _turn,
}
