import math
from dataclasses import replace

import pytest
import torch

from diorama.claims import samplers
from diorama.claims.samplers import CLAIM, HIGH, Trained, even_in_time, solve, toy
from diorama.errors import UserError
from diorama.networks.classifier import ClassifierConfig, ClassifierNetwork
from diorama.networks.unet import UNet, UNetConfig
from diorama.processes import solvers
from diorama.processes.levels import karras
from diorama.systems.images.guided_diffusion import GuidedDiffusion
from diorama.systems.understanding.classifier import Classifier
from diorama.types import Condition, Noise


def absent():
    raise UserError("no model")


QUICK = replace(CLAIM, dimensions=(2,), steps=(16, 64, 512), trained=absent)


def test_the_solvers_have_their_order():
    effect = QUICK.run(0)["A"]
    assert effect.value > 0
    assert set(effect.arms) == {"Euler 2-D", "Heun 2-D", "2M 2-D"}


@pytest.mark.parametrize(("calls", "steps"), [(1, 1), (9, 5), (10, 5), (11, 6), (12, 6)])
def test_calls_pay_for_steps(calls, steps):
    assert CLAIM.heun.steps(calls) == steps
    assert CLAIM.euler.steps(calls) == calls


def test_the_mixtures_denoiser_is_the_posterior_mean():
    """Against the mean of many clean points, weighted by how likely each is to have become x."""
    mixture, _ = toy(0, 2)
    noise = Noise([1])
    chosen = mixture.means[noise.integers(8, 200_000)[0]]
    clean = chosen + mixture.std * noise.normal(200_000, 2)[0].double()
    for sigma in (0.1, 0.5, 2.0):
        x = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
        weight = (-(clean - x).square().sum(1) / (2 * sigma**2)).softmax(0)
        found = mixture(x, torch.tensor([sigma], dtype=torch.float64), Condition())
        assert torch.allclose(found[0], weight @ clean, atol=0.02)


def test_the_grids_begin_and_end_together():
    for levels in (karras(6), even_in_time(6)):
        assert levels.shape == (7,)
        assert levels[0].item() == pytest.approx(HIGH, rel=1e-4)
        assert levels[-1] == 0
        assert (levels.diff() < 0).all()


def pretend(sampler):
    """A world of points for part B: pictures are draws of a mixture, features the points themselves."""
    mixture, start = toy(0, 2)

    def real(seed):
        noise = Noise([seed])
        return mixture.means[noise.integers(8, 256)[0]] + mixture.std * noise.normal(256, 2)[0]

    return lambda: Trained(lambda solver, levels, seed: sampler(solver, mixture, start, levels), real, lambda x: x)


def test_part_b_on_a_model_that_is_known():
    effects = replace(QUICK, trained=pretend(solve), steps=(4, 8, 16)).run(0)
    assert {"DDIM", "Heun", "2M", "ancestral", "real"} == set(effects["B1"].arms)
    assert abs(effects["B1"].arms["real"]) < 0.05
    assert effects["B2"].value == pytest.approx(0.8 * effects["B2"].arms["ancestral"] - effects["B2"].arms["DDIM"])


def test_samplers_that_are_all_alike_need_no_fewer_calls():
    alike = replace(QUICK, trained=pretend(lambda solver, *rest: solve(solvers.euler, *rest[:2], karras(5))), steps=(4, 8, 16))
    effects = alike.run(0)
    assert effects["B1"].value < 0
    assert effects["B2"].value < 0


def test_part_b_with_models_as_they_are_saved(tmp_path, monkeypatch):
    """Random weights say nothing; that every arm is drawn, decoded and seen does."""
    Classifier(ClassifierNetwork(ClassifierConfig(labels=2)), ("a", "b")).save_pretrained(tmp_path / "judge")
    config = UNetConfig(channels=3, widths=(8,), depth=1, attention=(False,), heads=2, labels=8, embedding=16)
    model = GuidedDiffusion(UNet(config), tuple("abcdefgh"), 32)
    for i, weight in enumerate(model.network.parameters()):  # an untrained outlet paints the same grey from whatever it starts
        weight.data += 0.05 * Noise([i]).normal(*weight.shape)[0]
    model.save_pretrained(tmp_path / "model")
    folders = {samplers.MODEL: tmp_path / "model", samplers.JUDGE: tmp_path / "judge"}
    for name, value in {"model_folder": folders.get, "N": 32, "FEW": 3, "MANY": 4, "GRIDS": 5}.items():
        monkeypatch.setattr(samplers, name, value)
    effects = replace(QUICK, trained=samplers.shipped)._trained(0)
    assert all(math.isfinite(value) for effect in effects.values() for value in (effect.value, *effect.arms.values()))
    assert len(set(effects["B1"].arms.values())) == 5
    assert effects["B1"].arms["real"] < effects["B1"].arms["DDIM"]  # pictures of the same world stand nearer than noise


def test_a_missing_model_leaves_part_b_undecided_with_its_reason():
    effects = replace(QUICK, steps=(4, 8, 16)).run(0)
    assert {letter: effects[letter].note for letter in ("B1", "B2", "B3", "C")} == dict.fromkeys(
        ("B1", "B2", "B3", "C"), "no model"
    )
