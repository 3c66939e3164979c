"""The claim's own pieces, each against an answer that is known; the models it stands on are not needed."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from diorama.claims import kandinsky3
from diorama.claims.verdict import judge
from diorama.codecs.conv import ConvCodec, ConvCodecConfig
from diorama.codecs.quantise import VectorQuantiser, VectorQuantiserConfig
from diorama.networks.classifier import ClassifierConfig, ClassifierNetwork
from diorama.systems.images.unclip import Unclip
from diorama.systems.images.vq import VectorQuantised
from diorama.systems.understanding.classifier import Classifier
from diorama.types import Noise


@pytest.fixture
def shipped(monkeypatch):
    """Small ones in the place of the tokenizer and the judge; the painter and CLIP are nowhere."""
    torch.manual_seed(0)
    codec = ConvCodec(ConvCodecConfig(latent=8, patch=2, widths=(8, 16), variational=False))
    tokens = VectorQuantised(codec, VectorQuantiser(VectorQuantiserConfig(codes=16, width=8))).eval()
    eye = Classifier(ClassifierNetwork(ClassifierConfig(widths=(8, 16))), tuple("abcde")).eval()

    def folder(name):
        if name in (kandinsky3.MODEL, kandinsky3.CLIP):
            raise kandinsky3.UserError(f"needs {name}")

    monkeypatch.setattr(kandinsky3, "model_folder", folder)
    monkeypatch.setattr(kandinsky3.VectorQuantised, "from_pretrained", lambda folder: tokens)
    monkeypatch.setattr(kandinsky3.Classifier, "from_pretrained", lambda folder: eye)
    return SimpleNamespace(tokens=tokens, judge=eye)


QUICK = replace(kandinsky3.CLAIM, plan=replace(kandinsky3.PLAN, steps=2, batch=2, warmup=1), seen=32, unseen=32)


def test_the_plain_decoder_has_no_fewer_parameters_and_does_no_less():
    spatial, plain = (sum(p.numel() for p in ConvCodec(c).decoder.parameters()) for c in (kandinsky3.SPATIAL, kandinsky3.PLAIN))
    assert spatial <= plain < 1.05 * spatial


def test_each_picture_comes_with_its_own_codes(shipped):
    image, z = kandinsky3.pictures(shipped.tokens, 3, 16)
    batches = kandinsky3.pairs(image, z, 4)
    seen = [batches(step) for step in range(4)]
    assert torch.equal(torch.cat([b.image for b in seen]).flatten(1).sum(1).sort()[0], image.flatten(1).sum(1).sort()[0])
    for b in seen:
        assert torch.equal(shipped.tokens.tokenizer.lookup(shipped.tokens.tokenise(b.image)), b.latent)


def test_a_known_error_is_judged_as_such(shipped):
    image = 1.6 * Noise(range(3)).uniform(4, 32, 32) - 0.8
    off = SimpleNamespace(decode=lambda z: z + 0.1)
    near, far = kandinsky3.judged(off, shipped.judge, image, image)
    assert near == pytest.approx(26.0206, abs=1e-3)  # 10 log10 (4 / 0.01)
    assert far > 0
    assert kandinsky3.judged(SimpleNamespace(decode=lambda z: z), shipped.judge, image, image)[1] == 0


def test_without_spatial_norms_it_fails(shipped):
    effects = [replace(QUICK, decoder=kandinsky3.PLAIN).decoded(seed) for seed in range(3)]
    for part in kandinsky3.CLAIM.parts[:2]:
        assert judge(part, [effect[part.letter] for effect in effects]).verdict == "fails"
    assert all(effect["A1"].value == 0 for effect in effects)


def test_both_decoders_learn_and_what_they_decode_stays(shipped):
    before = [p.clone() for p in shipped.tokens.parameters()]
    arms = QUICK.decoded(0)["A1"].arms
    assert set(arms) == {"spatial", "plain"} and arms["spatial"] != arms["plain"]
    assert all(torch.equal(a, b) for a, b in zip(before, shipped.tokens.parameters(), strict=True))


def test_who_has_a_prior_is_told_by_it_alone_and_both_paint_from_the_same_noise():
    asked, began = [], []

    def paint(told, *, noise, **how):
        asked.append(told)
        began.append(noise.normal(2))
        return torch.zeros(len(noise), 4, 2, 2)

    prior = Unclip.__new__(Unclip)
    prior.imagine, prior.decode = lambda texts, noise: noise.normal(3), paint
    texts = ["a red circle and a blue star"] * (kandinsky3.CHUNK + 2)
    for model in (SimpleNamespace(sample=paint), prior):
        assert len(kandinsky3.drawn(model, texts, 1)) == len(texts)
    assert [len(told) for told in asked] == [kandinsky3.CHUNK, 2] * 2
    assert all(isinstance(told, torch.Tensor) for told in asked[2:])
    assert torch.equal(torch.cat(began[:2]), torch.cat(began[2:]))


def test_what_a_model_is_missing_for_is_not_claimed(shipped):
    effects = QUICK.run(0)
    assert set(effects) == {part.letter for part in kandinsky3.CLAIM.parts}
    assert effects["A1"].value is not None
    assert effects["B"].value is None and "needs world-flow" in effects["B"].note
