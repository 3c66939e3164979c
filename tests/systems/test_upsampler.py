import pytest
import tiny
import torch

from diorama.codecs.conv import ConvCodec
from diorama.errors import UserError
from diorama.networks.layers import halved
from diorama.networks.unet import UNet
from diorama.processes.cascade import resized
from diorama.systems.images.upsampler import PRESETS, Upsampler
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Batch, Noise, mix


def stripes(n=8, side=32):
    """Hard edges at random places: what enlarging blurs, and what can be known from the smaller picture."""
    edges = Noise(range(n)).integers(side // 2 - 4, 1)[:, :, None, None] * 2 + 4
    row = (torch.arange(side)[None, None, None] < edges).float() * 2 - 1
    return row.expand(n, 4, side, side).contiguous()


def system(config=tiny.ENLARGING):
    torch.manual_seed(0)
    return Upsampler(UNet(config), 32).eval()


def test_untrained_it_only_enlarges():
    small = halved(stripes())
    assert torch.allclose(system().sample(small, noise=Noise(range(8))), resized(small, (32, 32)).clamp(-1, 1), atol=1e-6)


def test_a_few_steps_make_edges_sharper():
    upsampler, image = system(), stripes()
    plan = Plan(steps=60, batch=8, lr=1e-2, warmup=5, ema=0.8, device="cpu", dtype="float32")
    fit(upsampler, lambda step, rank=0, world=1: Batch(image), plan)
    small = halved(image)
    errors = [(x - image).square().mean() for x in (upsampler.sample(small, noise=Noise(range(8))), resized(small, (32, 32)))]
    assert errors[0] < 0.5 * errors[1]


def test_one_network_for_all_sizes_and_any_neighbours():
    upsampler = system()
    tiny.randomised(upsampler.network)
    x = Noise(range(3)).normal(4, 12, 20)
    together = upsampler.sample(x, augmentation=0.2, noise=Noise(range(3)))
    assert together.shape == (3, 4, 24, 40)
    assert together.abs().max() <= 1
    assert torch.allclose(upsampler.sample(x[1:2], augmentation=0.2, noise=Noise([1]))[0], together[1], atol=1e-4)


def learner(size=64):
    """A new one, as training begins with it."""
    new = Upsampler.new(preset="nano", size=size, labels=(), part=untrained)
    new.begin(untrained)
    return new


def untrained(name, kind):
    return kind(kind.Config())


def test_some_pictures_are_as_a_codec_would_have_painted_them():
    upsampler, image, noise = learner(), torch.ones(16, 4, 64, 64), range(16)
    small = upsampler.shrunk(image, Noise(noise))
    as_they_are = (small == 1).flatten(1).all(1)
    assert 0 < as_they_are.sum() < 16
    upsampler.codec = None
    assert torch.equal(upsampler.shrunk(image, Noise(noise)), halved(image))


def test_its_codec_is_neither_trained_nor_saved(tmp_path):
    upsampler = learner()
    assert isinstance(upsampler.codec, ConvCodec)
    trained = {id(p) for p in upsampler.phases()[0].parameters}
    assert trained == {id(p) for p in upsampler.network.parameters()}
    upsampler.save_pretrained(tmp_path / "model")
    again = Upsampler.from_pretrained(tmp_path / "model")
    assert again.codec is None
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model_index.json", "network"]
    x = Noise([mix(1)]).normal(4, 16, 16)
    assert torch.equal(*(s.sample(x, noise=Noise([0])) for s in (upsampler.eval(), again)))


def test_no_layer_works_at_full_size_nor_looks_at_all_places():
    """What bounds the cost: 128 to 256 px is four times 64 to 128 px."""
    assert all(config.patch > 1 and not config.bottom and not any(config.attention) for config in PRESETS.values())


def test_sizes_that_do_not_fit_are_told():
    with pytest.raises(UserError, match="size 100 is not a multiple of 64: use 64"):
        learner(100)
