"""FID's Inception: its names, its shapes, and where it differs from every other."""

import pytest
import torch
import torch.nn.functional as F

from diorama.networks.inception import BLOCKS, Block, FidInception


@pytest.fixture(scope="module")
def network() -> FidInception:
    torch.manual_seed(0)
    return FidInception()


def test_it_has_the_published_names_and_size(network):
    state = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert len(state) == 94 * 6 + 2  # of each convolution its kernel and five tensors of its norm; and the classes
    assert sum(p.numel() for p in network.parameters()) == 23_850_960
    published = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.bn.running_var": (192,),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_5d.branch_pool.conv.weight": (64, 288, 1, 1),
        "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
        "Mixed_6c.branch7x7_2.conv.weight": (160, 160, 1, 7),
        "Mixed_6e.branch7x7dbl_5.conv.weight": (192, 192, 1, 7),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7b.branch1x1.conv.weight": (320, 1280, 1, 1),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch3x3_2a.bn.bias": (384,),
        "fc.weight": (1008, 2048),
        "fc.bias": (1008,),
    }
    assert {name: state.get(name) for name in published} == published


def test_what_it_sees_has_the_published_shapes(network):
    image = torch.rand(1, 4, 20, 30, generator=torch.Generator().manual_seed(0)) * 2 - 1
    maps = network.maps(image)
    widths = [256, 288, 288, *[768] * 5, 1280, 2048, 2048]
    sides = [35, 35, 35, *[17] * 5, 8, 8, 8]
    assert [tuple(level.shape) for level in maps] == [(1, c, n, n) for c, n in zip(widths, sides, strict=True)]
    features = network.features(network.resized(image))  # at its own size it resamples nothing
    assert torch.allclose(features, maps[-1].mean((2, 3)), atol=1e-6)
    assert network(image).shape == (1, 1008)


def test_a_picture_is_measured_between_centres_of_pixels(network):
    ramp = torch.linspace(0, 1, 50).expand(1, 3, 40, 50)
    places = ((torch.arange(299) + 0.5) * 50 / 299 - 0.5).clamp(0, 49) / 49
    assert torch.allclose(network.resized(ramp), places.expand(1, 3, 299, 299), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "c_in", "by_most"), [("Mixed_5b", 192, False), ("Mixed_6b", 768, False), ("Mixed_7c", 2048, True)]
)
def test_what_is_beyond_the_edge_is_not_pooled(name, c_in, by_most):
    torch.manual_seed(0)
    block = Block(c_in, BLOCKS[name], by_most).eval()
    x = torch.randn(1, c_in, 4, 5)
    pooled = torch.empty_like(x)
    for i in range(4):
        for j in range(5):
            seen = x[:, :, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].flatten(2)
            pooled[:, :, i, j] = seen.amax(-1) if by_most else seen.mean(-1)
    conv = block.get_submodule("branch_pool").conv
    expected = F.relu(F.conv2d(pooled, conv.weight) / (1 + 1e-3) ** 0.5)  # a new norm divides by the root of 1 + eps
    assert torch.allclose(block(x)[:, -conv.out_channels :], expected, atol=1e-5)


def test_only_the_last_block_pools_by_the_most(network):
    assert [name for name in BLOCKS if network.get_submodule(name).by_most] == ["Mixed_7c"]
