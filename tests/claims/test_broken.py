"""The harness can say no: a broken piece in the place of a good one, and the verdict is `fails`."""

from dataclasses import replace

import pytest
import torch

from diorama.claims import clip, dreambooth, guided_diffusion
from diorama.claims.runner import verify
from diorama.claims.verdict import judge
from diorama.foundations import folder_of
from diorama.systems.understanding.classifier import Classifier

MODELS = (guided_diffusion.MODEL, guided_diffusion.JUDGE, "world-noisy")


def shipped_teacher(kind, seed, model, plan):
    """The shipped classifier, instead of training one in a test."""
    return Classifier.from_pretrained(folder_of("world-noisy"))


def away(log_prob):
    return lambda x, sigma, label: -log_prob(x, sigma, label)


@pytest.mark.skipif(any(folder_of(name) is None for name in MODELS), reason=f"needs {', '.join(MODELS)}")
def test_guidance_with_its_sign_flipped_fails():
    quick = replace(guided_diffusion.CLAIM, teach=shipped_teacher, scales=(0.0, 4.0), each=20)
    row = verify(replace(quick, lead=away))
    assert row.verdict == "fails"
    assert row.parts[0].verdict == "fails"
    assert row.parts[0].effect < 0


def shuffled(texts):
    """Each picture with its neighbour's words."""
    return [*texts[1:], texts[0]]


def test_contrast_with_shuffled_texts_fails():
    quick = replace(clip.CLAIM, plan=replace(clip.PLAN, steps=12, batch=16, warmup=3), each=2)
    part, broken = clip.CLAIM.parts[0], replace(quick, told=shuffled)
    effects = [broken.objective(seed) for seed in range(3)]
    assert judge(part, effects).verdict == "fails"
    assert quick.objective(0).arms["words"] == effects[0].arms["words"]  # the other arm does not notice


@pytest.mark.skipif(folder_of(dreambooth.MODEL) is None, reason=f"needs {dreambooth.MODEL}")
def test_a_subject_learned_without_its_class_fails(monkeypatch):
    monkeypatch.setattr(
        dreambooth.Oracle, "observe", lambda self, samples, truth: torch.ones(len(samples), 3)
    )  # slow, and not in B1
    quick = replace(dreambooth.CLAIM, plan=replace(dreambooth.PLAN, steps=2, batch=2), each=1, steps=1)
    row = verify(replace(quick, prior=0))
    assert row.verdict == "fails"
    assert [(part.letter, part.effect, part.verdict) for part in row.parts if part.letter == "B1"] == [("B1", 0.0, "fails")]
