import pytest
import torch

from diorama.errors import UserError
from diorama.networks.unet import UNet, UNetConfig
from diorama.systems.images.guided_diffusion import GuidedDiffusion
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import NO_LABEL, Batch, Noise, mix

CONFIG = UNetConfig(channels=3, patch=2, widths=(16,), depth=1, attention=(False,), heads=2, labels=2, embedding=32, levels=100.0)


@pytest.fixture
def system():
    torch.manual_seed(0)
    system = GuidedDiffusion(UNet(CONFIG), ("dark", "light"), 8)
    for weight in system.network.parameters():  # it begins silent, and so says the same of every class
        torch.nn.init.normal_(weight, std=0.2)
    return system.eval()


def batch(step=0, rank=0, world=1):
    label = torch.arange(8) % 2
    return Batch((0.6 * label - 0.3)[:, None, None, None].expand(8, 4, 8, 8).contiguous(), label=label)


def test_a_picture_is_the_same_alone_and_in_a_batch(system):
    labels = torch.tensor([0, 1, NO_LABEL])
    together = system.sample(labels, steps=3, guidance=2.0, noise=Noise([5, 6, 7]))
    assert together.shape == (3, 3, 8, 8)
    for i in range(3):
        assert torch.allclose(
            system.sample(labels[i : i + 1], steps=3, guidance=2.0, noise=Noise([5 + i]))[0], together[i], atol=1e-5
        )


def test_with_a_guide_the_network_is_asked_for_nothing(system):
    def blind(x, sigma, label):
        return (x * 0).flatten(1).sum(1)

    noise, label = [1, 2], torch.tensor([0, 1])
    guided = system.sample(label, steps=3, guide=blind, noise=Noise(noise))
    assert torch.allclose(guided, system.sample(torch.full((2,), NO_LABEL), steps=3, noise=Noise(noise)), atol=1e-6)
    assert not torch.allclose(guided, system.sample(label, steps=3, noise=Noise(noise)), atol=1e-3)


def test_a_guide_leads(system):
    def bright(x, sigma, label):
        return x.flatten(1).sum(1) / sigma.square()

    plain, led = (system.sample(torch.zeros(4).long(), steps=6, guide=bright, scale=s, noise=Noise(range(4))) for s in (0.0, 1.0))
    assert (led.mean((1, 2, 3)) > plain.mean((1, 2, 3))).all()


def test_a_few_steps_teach_it_something():
    torch.manual_seed(0)
    system, noise = GuidedDiffusion(UNet(CONFIG), ("dark", "light"), 8), [mix(7, i) for i in range(8)]
    with torch.no_grad():
        before = system.loss(batch(), Noise(noise)).mean()
    fit(system, batch, Plan(steps=20, batch=8, lr=1e-2, warmup=2, ema=0.5, device="cpu", dtype="float32"))
    with torch.no_grad():
        assert system.loss(batch(), Noise(noise)).mean() < before


def test_saved_and_loaded_it_is_the_same(system, tmp_path):
    system.save_pretrained(tmp_path / "model")
    again, label = GuidedDiffusion.from_pretrained(tmp_path / "model"), torch.tensor([0, 1])
    pictures = [s.sample(label, steps=2, noise=Noise([0, 1])) for s in (system, again)]
    assert torch.equal(*pictures)
    assert again.labels == ("dark", "light")


def test_sizes_that_do_not_fit_are_told():
    with pytest.raises(UserError, match="size 30 is not a multiple of 8: use 24"):
        GuidedDiffusion.new(preset="nano", size=30, labels=["a"], part=None)
    with pytest.raises(UserError, match="preset 'huge'"):
        GuidedDiffusion.new(preset="huge", size=32, labels=["a"], part=None)
