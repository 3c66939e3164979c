import torch

from diorama.codecs.conv import ConvCodec
from diorama.codecs.patches import PatchCodec, PatchCodecConfig
from diorama.types import Noise

IMAGE = Noise([0, 1]).uniform(4, 8, 12) * 2 - 1


def test_there_and_back_nothing_is_lost():
    codec = PatchCodec(PatchCodecConfig())
    codec.normalise(IMAGE)
    z = codec.encode(IMAGE)
    assert z.shape == (2, 16, 4, 6)
    assert torch.allclose(codec.decode(z), IMAGE, atol=1e-6)


def test_latents_have_unit_variance_once_normalised():
    codec = PatchCodec(PatchCodecConfig())
    codec.normalise(IMAGE)
    z = codec.encode(IMAGE).transpose(0, 1).flatten(1)
    assert torch.allclose(z.mean(1), torch.zeros(16), atol=1e-5)
    assert torch.allclose(z.std(1), torch.ones(16), atol=1e-4)


def test_noise_changes_nothing():
    codec = PatchCodec(PatchCodecConfig())
    assert torch.equal(codec.encode(IMAGE, Noise([3, 4])), codec.encode(IMAGE))


def test_saved_and_loaded_it_is_a_codec_like_any_other(tmp_path):
    codec = PatchCodec(PatchCodecConfig(patch=4))
    codec.normalise(IMAGE)
    codec.save_pretrained(tmp_path / "codec")
    again = PatchCodec.from_pretrained(tmp_path / "codec")
    assert isinstance(again, ConvCodec)
    assert torch.equal(again.encode(IMAGE), codec.encode(IMAGE))
    assert not list(again.parameters())
