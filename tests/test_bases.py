"""A new system that stands on parts of several saved ones."""

import pytest
import tiny
import tiny_painters
import torch

from diorama.codecs.conv import ConvCodec
from diorama.codecs.quantise import VectorQuantiser
from diorama.data.open import open_data
from diorama.errors import UserError
from diorama.files import sha256
from diorama.networks.vit import ViT
from diorama.sources import Worlds
from diorama.systems.base import load_system
from diorama.systems.images.autoencoder import Autoencoder
from diorama.systems.images.rcg import Rcg
from diorama.systems.images.vq import VectorQuantised
from diorama.systems.understanding.mae import MaskedAutoencoder
from diorama.train import Parts, train
from diorama.training.plan import Plan


@pytest.fixture(scope="module")
def vq(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases") / "vq"
    VectorQuantised(*tiny_painters.tokenizer()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def mae(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases") / "mae"
    system = MaskedAutoencoder.new(preset="nano", size=32, labels=(), part=None)
    system.save_pretrained(folder)
    return folder


@pytest.fixture
def pictures(picture_folder):
    return open_data(picture_folder)


def test_rcg_is_trained_on_a_tokenizer_and_an_encoder(vq, mae, tmp_path):
    plan = Plan(steps=1, batch=2, warmup=1, log_every=1, sample_every=10, save_minutes=0, device="cpu", dtype="float32")
    train("rcg", Worlds(size=32), tmp_path / "run", plan, preset="nano", base=[vq, mae], say=lambda line: None)
    made = load_system(tmp_path / "run" / "model")
    assert isinstance(made, Rcg)
    for name, source in (("codec", vq), ("quantiser", vq), ("encoder", mae)):
        theirs = getattr(load_system(source), name).state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in getattr(made, name).state_dict().items())


def test_the_first_that_has_a_part_gives_it(vq, mae, pictures, tmp_path):
    Autoencoder(tiny.codec()).save_pretrained(tmp_path / "other")
    for bases in ([vq, tmp_path / "other", mae], [tmp_path / "other", mae, vq]):
        parts = Parts(bases, pictures)
        parts("codec", ConvCodec), parts("quantiser", VectorQuantiser), parts("encoder", ViT)
        first = next(base for base in bases if base != mae)
        assert parts.taken == {
            "codec": sha256(first / "codec" / "model.safetensors"),
            "quantiser": sha256(vq / "quantiser" / "model.safetensors"),
            "encoder": sha256(mae / "encoder" / "model.safetensors"),
        }


def test_a_whole_system_is_the_first_of_its_kind(vq, mae, pictures):
    assert isinstance(Parts([mae, vq], pictures)("tokenizer", VectorQuantised), VectorQuantised)
    with pytest.raises(UserError, match="is a saved mae, which is no VectorQuantised: name another with --base"):
        Parts([mae], pictures)("tokenizer", VectorQuantised)


def test_a_part_that_none_has_is_told(vq, pictures):
    with pytest.raises(UserError, match="no trained part 'encoder' to stand on"):
        Rcg.new(preset="nano", size=16, labels=(), part=Parts([vq], pictures))
