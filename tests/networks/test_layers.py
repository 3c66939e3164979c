import math

import pytest
import torch
from torch import nn

from diorama.networks.layers import (
    Downsample,
    GroupNorm,
    LevelEmbedding,
    ResidualBlock,
    Upsample,
    broadcast,
    convolution,
    doubled,
    zeroed,
)
from diorama.networks.lora import wrap

SPATIAL = [(8,), (8, 4), (4, 8, 2)]


@pytest.mark.parametrize("spatial", SPATIAL)
def test_sizes(spatial):
    axes, x = len(spatial), torch.randn(2, 8, *spatial)
    assert convolution(axes, 8, 3)(x).shape == (2, 3, *spatial)
    assert Downsample(axes, 8, 16)(x).shape == (2, 16, *(n // 2 for n in spatial))
    assert Upsample(axes, 8, 16)(x).shape == (2, 16, *(2 * n for n in spatial))
    assert ResidualBlock(axes, 8, 16, embedding=5)(x, torch.randn(2, 5)).shape == (2, 16, *spatial)


def test_a_new_residual_block_is_its_skip():
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(ResidualBlock(2, 8, 8, embedding=5)(x, torch.randn(2, 5)), x)


def test_zeroed_is_zero():
    assert not any(p.any() for p in zeroed(nn.Linear(3, 4)).parameters())


@pytest.mark.parametrize(("channels", "groups"), [(8, 1), (16, 2), (64, 8), (256, 32), (1024, 32), (12, 1), (160, 16)])
def test_groups_have_at_least_eight_channels(channels, groups):
    assert GroupNorm(channels).num_groups == groups


def test_broadcast_adds_trailing_axes():
    x = torch.ones(3, 2, 4, 4)
    assert (broadcast(torch.arange(3.0), x) * x)[:, 1, 2, 3].tolist() == [0, 1, 2]
    assert broadcast(torch.ones(3, 1, 4, 4), x).shape == (3, 1, 4, 4)


def test_levels_are_told_apart():
    """Steps of a flow's time as fine as a sampler's are different inputs."""
    torch.manual_seed(0)
    features = LevelEmbedding(32)(torch.linspace(0, 1, 101))
    distance = torch.cdist(features, features) + 10 * torch.eye(101)
    assert distance.min() > 0.05


@pytest.mark.parametrize("spatial", [(40,), (6, 7), (3, 4, 5)])
def test_doubling_and_convolving_at_once_changes_nothing(spatial):
    """Neither the values nor any gradient, at the borders too; and a LoRA around the convolution still works."""
    torch.manual_seed(0)
    layer, x = Upsample(len(spatial), 3, 5).double(), torch.randn(2, 3, *spatial, dtype=torch.float64)
    assert math.prod(spatial) > Upsample.FEW
    x.requires_grad_()
    apart, at_once = layer.convolution(doubled(x)), layer(x)
    assert torch.allclose(at_once, apart, atol=1e-12)
    with torch.no_grad():
        assert torch.equal(layer(x), apart)
    weight, inputs = torch.randn_like(apart), (x, *layer.parameters())
    gradients = (torch.autograd.grad(out, inputs, weight) for out in (apart, at_once))
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(*gradients, strict=True))
    wrap(layer, "convolution", 2)
    assert torch.allclose(layer(x), apart, atol=1e-12)
