"""The experiment runs whole on stand-ins that know nothing, and where the baseline is the method it cannot hold."""

from dataclasses import replace

import pytest
import torch

from diorama.claims import rcg
from diorama.codecs.conv import ConvCodec, ConvCodecConfig
from diorama.codecs.quantise import VectorQuantiser, VectorQuantiserConfig
from diorama.foundations.registry import find
from diorama.foundations.world import world_of
from diorama.networks.mage import MageConfig
from diorama.networks.mlp import VectorMLPConfig
from diorama.networks.vit import Painter, PainterConfig, ViT, ViTConfig
from diorama.systems.images.rcg import PRESETS
from diorama.systems.images.vq import VectorQuantised
from diorama.systems.understanding.classifier import Classifier
from diorama.systems.understanding.mae import MaskedAutoencoder

QUICK = replace(
    rcg.CLAIM, plan=replace(rcg.PLAN, steps=2, batch=4), dream=replace(rcg.DREAM, steps=2, batch=4), seen=64, drawn=64
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    codec = ConvCodec(ConvCodecConfig(latent=4, patch=2, widths=(8, 8), decoder_depth=1, variational=False))
    vit = ViT(ViTConfig(size=16, patch=4, width=16, depth=1, heads=2))
    made = {
        rcg.TOKENS: VectorQuantised(codec, VectorQuantiser(VectorQuantiserConfig(codes=8, width=4))),
        rcg.ENCODER: MaskedAutoencoder(vit, Painter(PainterConfig(width=8, depth=1, heads=1, given=16, places=16))),
        rcg.JUDGE: Classifier.new(preset="mini", size=32, labels=["a", "b"], part=None),
    }
    for name, system in made.items():
        system.eval().save_pretrained(folder / name)
    return folder


def test_where_the_baseline_is_the_method_it_does_not_hold(models, monkeypatch):
    monkeypatch.setattr(rcg, "model_folder", lambda name: models / name)
    monkeypatch.setattr(rcg, "unevenness", lambda x, kinds: 0.5)  # the oracle looks long at what shows nothing
    small = VectorMLPConfig(width=16, depth=1), MageConfig(width=16, depth=1, decoder_depth=1, heads=2)
    monkeypatch.setitem(PRESETS, "nano", small)
    effects = replace(QUICK, baseline=rcg.as_shipped).run(0)
    assert set(effects) == {part.letter for part in rcg.CLAIM.parts}
    arms = effects["B"].arms
    assert arms["untrained"] == arms["RCG"]
    assert effects["B"].value == pytest.approx(-0.1 * arms["RCG"])
    assert effects["A"].value == pytest.approx((arms["nothing"] + arms["class"]) / 2 - arms["RCG"])


def test_without_its_models_it_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("diorama.foundations.registry.asset", lambda name: tmp_path / name)
    assert all("needs world-vq" in effect.note for effect in rcg.CLAIM.run(0).values())


def test_unevenness_is_the_share_of_pictures_of_too_frequent_kinds():
    """All four of one kind, where four come as often: three of them are too many."""
    world = world_of(find(rcg.JUDGE), 0, **{**rcg.KINDS, "shapes": ("circle",), "colours": ("red",)})
    kinds = ("red circle", "red square", "blue circle", "blue square")
    assert rcg.unevenness(world.batch(0, 4).image, kinds) == pytest.approx(0.75)
    assert rcg.unevenness(torch.ones(4, 4, 32, 32), kinds) == pytest.approx(1.0)  # nothing to read
