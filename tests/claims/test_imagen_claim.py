"""The claim's own pieces, each against an answer that is known; the models it stands on are not needed."""

from dataclasses import replace

import pytest
import torch

from diorama.claims import imagen
from diorama.claims.imagen import Experiment, Larger
from diorama.networks.unet import UNet
from diorama.types import Batch, Condition, Noise


class Painter:
    """Its clean pictures are four times too bright, whatever is asked; its latents are the pixels."""

    sigmas = None

    def __init__(self, image):
        self.image, self.denoiser, self.codec = image, self, self

    def __call__(self, x, sigma, condition):
        return 4 * self.image[: len(x)]

    def condition(self, texts):
        return Condition(label=torch.zeros(len(texts)).long())

    def encode(self, x):
        return x

    decode = encode

    def paint(self, denoiser, condition, *, steps, solver, noise):
        x = torch.zeros(len(noise), *self.image.shape[1:])
        return denoiser(x, x.new_ones(len(x)), condition).clamp(-1, 1)


class Judge:
    """Sees how bright pictures are, and how much that varies."""

    def features(self, image):
        return torch.cat([image.abs().mean((2, 3)), image.std((2, 3))], 1)


@pytest.fixture
def experiment(monkeypatch):
    image = 1.8 * Noise(range(32)).uniform(4, 8, 8) - 0.9
    made = Experiment(replace(imagen.CLAIM, drawn=32), 0, Painter(image), Judge())
    made.real = Batch(image, ["a red circle"] * 32)
    made.seen = made.features(image.roll(1, 0))
    monkeypatch.setattr(imagen.Oracle, "observe", lambda self, x, words: torch.ones(len(x), 3))
    monkeypatch.setattr(imagen, "classifier_free", lambda denoiser, scale: denoiser)
    return made


def test_a_dynamic_threshold_gives_back_what_was_too_bright(experiment):
    found = experiment.thresholds()
    burnt = found["B1"].arms
    assert burnt["dynamic"] < 0.03 < 0.5 < burnt["static"] == burnt["none"]  # of one step alone the last two are the same
    assert found["B2"].arms["dynamic"] < found["B2"].arms["static"]
    assert found["B3"].value == pytest.approx(0.05)


def test_a_rule_that_does_not_make_paler_fails(experiment):
    experiment.claim = replace(experiment.claim, rule=imagen.none)
    assert experiment.thresholds()["B1"].value <= 0


def test_both_stages_start_alike_and_only_one_sees_noise():
    stage, image = Larger(UNet(imagen.SHAPE)), Noise(range(4)).normal(4, 16, 16)
    shown = []
    stage.network.forward = lambda x, c_noise, condition: shown.append(condition) or torch.zeros_like(x)
    for levels in (imagen.any_level, imagen.no_level):
        stage.levels = levels
        stage.loss(Batch(image), Noise(range(4)))
    assert shown[0].extra["augmentation"].unique().numel() == 4
    assert shown[1].extra["augmentation"].unique().tolist() == [0.0]
    assert stage.sample(image, 0.2, Noise(range(4))).shape == (4, 4, 32, 32)


def test_without_its_models_nothing_is_claimed(monkeypatch):
    def gone(name):
        raise imagen.UserError(f"needs {name}")

    monkeypatch.setattr(imagen, "model_folder", gone)
    effects = imagen.CLAIM.run(0)
    assert set(effects) == {part.letter for part in imagen.CLAIM.parts}
    assert all(effect.value is None and "needs world-flow" in effect.note for effect in effects.values())
