"""The sound of a clip, in step with what happens in it, and its events read back from the waveform alone.

A bounce sounds at the pitch of its material, a collision a fifth above both of its materials, a change as two notes, up for a colour
and down for a shape; loudness is speed. A cut makes no sound. A waveform is float32 (n,) in [-1, 1] at 16 kHz.
"""

from __future__ import annotations

import math
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement
from pathlib import Path

import torch
from torch import Tensor

from diorama.errors import UserError
from diorama.files import atomic_file
from diorama.worlds.clips import Clip

RATE = 16_000  # samples a second
HOP = 160  # samples: how finely onsets are looked for
PITCHES = {"rubber": 220.0, "wood": 440.0, "metal": 880.0, "glass": 1760.0}  # Hz
CHIMES = {"colour": (2637.0, 3520.0), "shape": (3520.0, 2637.0)}
LENGTH = 1920  # samples of a note
DECAY = 0.022  # seconds in which a note falls to 1 / e
LOUD = 0.3  # amplitude of what meets at FULL sides per second, and of a chime
FULL = 2.0
QUIET = 0.1  # sides per second below which nothing is heard


@dataclass(frozen=True)
class Heard:
    """A sound and what it means; `speed` is that of a bounce or a collision."""

    kind: str
    time: float  # seconds
    materials: tuple[str, ...] = ()  # in alphabetical order
    speed: float = 0.0


@cache
def notes() -> dict[tuple[str, tuple[str, ...]], Tensor]:
    """Every sound there is by its kind and materials, (LENGTH,) each, at most 1."""
    found: dict[tuple[str, tuple[str, ...]], Tensor] = {("bounce", (name,)): _note(pitch) for name, pitch in PITCHES.items()}
    for pair in combinations_with_replacement(sorted(PITCHES), 2):
        found["collision", pair] = sum((_note(1.5 * PITCHES[name]) for name in pair), torch.zeros(LENGTH)) / 2
    half = LENGTH // 2
    return found | {(kind, ()): torch.cat([_note(a)[:half], _note(b)[:half]]) for kind, (a, b) in CHIMES.items()}


def _note(pitch: float) -> Tensor:
    t = torch.arange(LENGTH, dtype=torch.float64) / RATE
    fade = (1 - torch.arange(LENGTH) / LENGTH).clamp(max=0.2) * 5  # to silence, without a click
    return (torch.sin(2 * math.pi * pitch * t) * torch.exp(-t / DECAY) * fade).float()


def audible(clip: Clip) -> list[Heard]:
    """What there is to hear in the clip, in order."""
    heard = [Heard(e.kind, e.time, tuple(sorted(e.materials)), e.speed) for e in clip.events() if e.kind != "cut"]
    return [sound for sound in heard if sound.kind in CHIMES or sound.speed >= QUIET]


def sound(clip: Clip) -> Tensor:
    """(n,) for the length of the clip: the same for the same clip."""
    out = torch.zeros(round(clip.seconds * RATE))
    for event in audible(clip):
        start = round(event.time * RATE)
        out[start : start + LENGTH] += _loudness(event) * notes()[event.kind, event.materials][: len(out) - start]
    return out.clamp(-1, 1)


def _loudness(event: Heard) -> float:
    return LOUD if event.kind in CHIMES else LOUD * min(1.0, event.speed / FULL)


def write_wav(path: str | Path, waveform: Tensor) -> None:
    """The waveform as a 16-bit mono WAV file, whole or not there. Raises UserError where it is no waveform or cannot be written."""
    if waveform.ndim != 1 or not len(waveform) or not bool(torch.isfinite(waveform).all()):
        raise UserError(f"a waveform is one row of finite numbers, not {tuple(waveform.shape)}: use the sound of a clip")
    samples = (waveform.detach().cpu().clamp(-1, 1) * 32767).round().to(torch.int16).numpy().astype("<i2")
    with atomic_file(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())


# --- from sound back to events --------------------------------------------------------------------

SILENCE = 0.5 * LOUD * QUIET / FULL  # amplitude below which there is nothing
MOST = 128  # sounds that are looked for


def listen(waveform: Tensor) -> list[Heard]:
    """What is heard in a waveform (n,), in order, by orthogonal matching pursuit (Pati et al. 1993).

    The note that explains most of what is left is added and the loudness of all is fitted anew, until nothing loud is left.
    """
    names, table = list(notes()), _overlaps()
    sounds = torch.stack(list(notes().values())).double()
    n = len(waveform) - HOP  # where a note may begin: of one that ends at once nothing is known
    alike = _correlate(torch.nn.functional.pad(waveform.detach().double().cpu(), (0, LENGTH)), sounds)[
        :, : max(0, n)
    ]  # (notes, n)
    power = sounds.square().sum(1, keepdim=True)
    left, loudness = alike.clone(), torch.zeros(0)
    found: list[tuple[int, int]] = []
    while n > 0 and len(found) < MOST:
        note, start = divmod(int((left.clamp(min=0).square() / power).argmax()), n)
        if left[note, start] / power[note] < SILENCE or (note, start) in found:
            break
        found.append((note, start))
        gram = torch.stack([torch.stack([_overlap(table, a, b) for b in found]) for a in found])
        loudness = torch.linalg.solve(gram + 1e-9 * torch.eye(len(found)), torch.stack([alike[k, at] for k, at in found]))
        left = alike.clone()
        for (k, at), size in zip(found, loudness.tolist(), strict=True):
            first, last = max(0, at - LENGTH + 1), min(n, at + LENGTH)
            left[:, first:last] -= size * table[:, k, first - at + LENGTH - 1 : last - at + LENGTH - 1]
    heard = [(*names[note], start / RATE, size) for (note, start), size in zip(found, loudness.tolist(), strict=True)]
    loud = [h for h in heard if h[3] >= SILENCE]
    return sorted(
        (Heard(kind, time, materials, 0.0 if kind in CHIMES else FULL * size / LOUD) for kind, materials, time, size in loud),
        key=lambda event: event.time,
    )


def _correlate(x: Tensor, sounds: Tensor) -> Tensor:
    """(notes, n): the product of each note, begun at each sample, with x (n,)."""
    n = len(x) + LENGTH
    return torch.fft.irfft(torch.fft.rfft(x, n) * torch.fft.rfft(sounds, n).conj(), n)[:, : len(x)]


@cache
def _overlaps() -> Tensor:
    """(a, b, 2 LENGTH - 1): the product of note b with note a begun so many samples later, from 1 - LENGTH on."""
    sounds = torch.stack(list(notes().values())).double()
    padded = torch.nn.functional.pad(sounds, (LENGTH - 1, LENGTH))
    return torch.stack([_correlate(row, sounds)[:, : 2 * LENGTH - 1] for row in padded], 1)


def _overlap(table: Tensor, a: tuple[int, int], b: tuple[int, int]) -> Tensor:
    apart = a[1] - b[1]
    return table[a[0], b[0], apart + LENGTH - 1] if abs(apart) < LENGTH else table.new_zeros(())


def matched(heard: Sequence[Heard], true: Sequence[Heard], within: float = HOP / RATE) -> list[tuple[Heard, Heard | None]]:
    """Each true event beside the first sound of its kind and materials that is heard so near to it in time, seconds; each sound once."""
    left, pairs = list(heard), []
    for event in true:
        same = [h for h in left if (h.kind, h.materials) == (event.kind, event.materials) and abs(h.time - event.time) <= within]
        pairs.append((event, same[0] if same else None))
        left = [h for h in left if not same or h is not same[0]]
    return pairs
