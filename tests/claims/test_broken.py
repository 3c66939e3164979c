"""The harness can say no: with a broken piece in the place of a good one, and all else the same, `holds` becomes `fails`."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from diorama.claims import ddpm, guided_diffusion, samplers
from diorama.claims.runner import verify
from diorama.errors import UserError
from diorama.foundations import folder_of
from diorama.processes import solvers
from diorama.systems.understanding.classifier import Classifier

MODELS = (guided_diffusion.MODEL, guided_diffusion.JUDGE, "world-noisy")


def absent(*_):
    raise UserError("no model")


def part(claim, letter):
    return next(part for part in verify(claim).parts if part.letter == letter)


def without_correction(denoiser, x, condition, levels, noise, on_step=None):
    """Heun's method that forgets its second half: it pays for it and stays Euler's."""
    return solvers.euler(denoiser, x, condition, levels, noise)


def test_heun_without_its_correction_fails():
    good = replace(samplers.CLAIM, dimensions=(2,), steps=(16, 64, 512), trained=absent)
    broken = replace(good, heun=samplers.Arm(without_correction, 2, calls=2))
    assert (part(good, "A").verdict, part(broken, "A").verdict) == ("holds", "fails")


def silent(denoiser, x, condition, levels, noise, on_step=None):
    """DDPM's sampler, and whatever it draws is zero."""
    still = SimpleNamespace(normal=lambda *shape: torch.zeros(len(x), *shape))
    return solvers.ancestral(denoiser, x, condition, levels, still)


def test_a_sampler_that_forgets_its_noise_fails(monkeypatch):
    monkeypatch.setattr(ddpm, "model_folder", absent)  # part B alone, on fewer points
    monkeypatch.setattr(ddpm, "POINTS", 128)
    assert (part(ddpm.CLAIM, "B").verdict, part(replace(ddpm.CLAIM, solver=silent), "B").verdict) == ("holds", "fails")


def shipped_teacher(kind, seed, model, plan):
    """The trained classifier, instead of training one in a test."""
    return Classifier.from_pretrained(folder_of("world-noisy"))


def away(log_prob):
    return lambda x, sigma, label: -log_prob(x, sigma, label)


@pytest.mark.skipif(any(folder_of(name) is None for name in MODELS), reason=f"needs {', '.join(MODELS)}")
def test_guidance_with_its_sign_flipped_fails():
    good = replace(guided_diffusion.CLAIM, teach=shipped_teacher, scales=(0.0, 4.0), each=20)
    right, wrong = part(good, "A1"), part(replace(good, lead=away), "A1")
    assert wrong.effect < 0 < right.effect
    assert wrong.verdict == "fails" != right.verdict
