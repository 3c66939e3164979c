import pytest
import tiny
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from diorama.codecs.conv import ConvCodec, ConvCodecConfig, kl, reconstruction
from diorama.networks.layers import fold, unfold
from diorama.types import Noise

SPATIAL = [(8,), (8, 4), (4, 8, 4)]


@pytest.mark.parametrize("spatial", SPATIAL)
def test_unfold_undoes_fold(spatial):
    x = torch.randn(2, 3, *spatial)
    folded = fold(x, 4)
    assert folded.shape == (2, 3 * 4 ** len(spatial), *(n // 4 for n in spatial))
    assert torch.equal(unfold(folded, 4), x)


def test_fold_is_torchs_pixel_unshuffle():
    x = torch.randn(2, 3, 8, 12)
    assert torch.equal(fold(x, 4), F.pixel_unshuffle(x, 4))
    assert torch.equal(unfold(F.pixel_unshuffle(x, 4), 4), x)


@pytest.mark.parametrize("spatial", [(16,), (8, 16), (4, 8, 8)])
@torch.no_grad()
def test_shapes(spatial):
    config = ConvCodecConfig(channels=3, latent=5, patch=2, widths=(8, 8), axes=len(spatial))
    codec, x = ConvCodec(config), torch.randn(2, 3, *spatial)
    z = codec.encode(x)
    assert config.stride == 4
    assert z.shape == (2, 5, *(n // 4 for n in spatial))
    assert codec.decode(z).shape == x.shape


@torch.no_grad()
def test_normalised_latents_have_unit_variance():
    codec = tiny.codec()
    with torch.no_grad():
        codec.encoder[-1].bias += torch.arange(8.0)  # far from zero, and noisy
    x = Noise(range(64)).uniform(4, 16, 16) * 2 - 1
    codec.normalise(x)
    z = codec.encode(x, Noise(range(64)))
    assert torch.allclose(z.mean((0, 2, 3)), torch.zeros(4), atol=0.1)
    assert torch.allclose(z.var((0, 2, 3)), torch.ones(4), atol=0.1)


@torch.no_grad()
def test_normalising_does_not_change_what_is_decoded():
    codec, x = tiny.codec(), Noise([0, 1]).normal(4, 16, 16)
    before = codec.decode(codec.encode(x))
    codec.normalise(x)
    assert torch.allclose(codec.decode(codec.encode(x)), before, atol=1e-4)


@torch.no_grad()
def test_noise_samples_the_posterior():
    codec, x = tiny.codec(), Noise([0]).normal(4, 16, 16)
    mean, log_variance = codec.posterior(x)
    drawn = torch.cat([codec.encode(x, Noise([seed])) for seed in range(500)])
    assert torch.allclose(drawn.mean(0), mean[0], atol=0.3 * (log_variance / 2).exp().max().item())
    assert torch.allclose(drawn.std(0) / (log_variance[0] / 2).exp(), torch.tensor(1.0), atol=0.2)


def test_it_is_differentiable_both_ways():
    codec, x = tiny.codec(), Noise([0]).normal(4, 16, 16).requires_grad_()
    codec.decode(codec.encode(x)).square().mean().backward()
    assert x.grad.any()


def test_kl_is_torchs_own():
    mean, log_variance = Noise([0, 1]).normal(3, 2, 2), Noise([2, 3]).normal(3, 2, 2)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).flatten(1).mean(1)
    assert torch.allclose(kl(mean, log_variance), expected)
    assert kl(torch.zeros(2, 3, 2), torch.zeros(2, 3, 2)).tolist() == [0, 0]


@pytest.mark.parametrize("spatial", [(16,), (16, 16), (8, 8, 8)])
def test_reconstruction_is_zero_only_where_equal(spatial):
    x = Noise([0, 1]).normal(2, *spatial)
    assert reconstruction(x, x).tolist() == [0, 0]
    changed = x.clone()
    changed[1].flatten()[7] += 0.1
    loss = reconstruction(changed, x)
    assert loss[0] == 0
    assert loss[1] > 0


def test_reconstruction_of_a_constant_error_is_its_size_at_every_scale():
    assert torch.allclose(reconstruction(torch.full((1, 1, 16, 16), 0.25), torch.zeros(1, 1, 16, 16)), torch.tensor(4 * 0.25))
