import math
from dataclasses import replace

import pytest
import torch

from diorama.claims import ddpm
from diorama.claims.ddpm import CLAIM, energy_distance, of_bound
from diorama.errors import UserError
from diorama.networks.classifier import ClassifierConfig, ClassifierNetwork
from diorama.processes.diffusion import even
from diorama.systems.images.ddpm import DDPM
from diorama.systems.understanding.classifier import Classifier


@pytest.fixture
def without_judge(monkeypatch):
    """Part B alone, on fewer points."""

    def missing(name):
        raise UserError(f"needs {name}")

    monkeypatch.setattr(ddpm, "model_folder", missing)
    monkeypatch.setattr(ddpm, "POINTS", 128)


def test_the_papers_sampler_ends_where_the_data_are(without_judge):
    effects = CLAIM.run(0)
    assert effects["B"].value > 0
    assert effects["A1"].note == effects["A2"].note == "needs world-features"


def test_arms_that_weigh_alike_come_out_alike(monkeypatch, tmp_path):
    """Same weights, pictures and noise in both: whatever differs is the loss. A judge that learned nothing will do."""
    Classifier(ClassifierNetwork(ClassifierConfig(labels=2)), ("a", "b")).save_pretrained(tmp_path)
    for name, value in {"model_folder": lambda name: tmp_path, "SEEN": 64, "HELD_OUT": 4}.items():
        monkeypatch.setattr(ddpm, name, value)
    quick = replace(CLAIM, plan=replace(CLAIM.plan, steps=2, batch=4, warmup=1), steps=2, drawn=32)
    alike, other = replace(quick, bound=even)._trained(0), quick._trained(0)
    assert alike["A2"].value == 0
    assert alike["A1"].value == pytest.approx(-0.2 * alike["A1"].arms["simple"])
    assert other["A2"].arms["simple"] == alike["A2"].arms["simple"]
    assert other["A2"].arms["bound"] != alike["A2"].arms["bound"]
    assert all(math.isfinite(value) for effect in other.values() for value in (effect.value, *effect.arms.values()))


def test_the_bound_weighs_low_noise_most():
    """Equation 12 with s^2 = beta, and 1 on average over the table."""
    sigmas = DDPM.bound.sigmas
    weights = of_bound(sigmas)
    assert weights.mean().item() == pytest.approx(1, rel=1e-5)
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    abar = (1 - beta).cumprod(0)
    told = beta / (2 * (1 - beta) * (1 - abar))
    assert torch.allclose(weights.double(), told / told.mean(), rtol=1e-4)


def test_the_distance_of_points_is_known():
    zero, one = torch.zeros(3, 1), torch.ones(3, 1)
    assert energy_distance(zero, zero) == 0
    assert energy_distance(zero, one) == 2
    assert energy_distance(torch.tensor([[0.0], [1.0]]), zero) == pytest.approx(2 * 0.5 - 0.5)


def test_pictures_have_256_values():
    found = ddpm.pictures(3, 8)
    assert found.shape == (8, 3, 16, 16)
    levels = (found + 1) * 127.5
    assert torch.allclose(levels, levels.round(), atol=1e-4)
