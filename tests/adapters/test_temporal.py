"""The picture network stays what it is, to the bit; what is new sees time, and only time."""

import pytest
import tiny
import torch

from diorama.adapters.temporal import Inflated, Temporal, apart, inflate, together
from diorama.networks.layers import ResidualBlock
from diorama.networks.unet import Block, UNet
from diorama.processes.diffusion import Diffusion
from diorama.processes.scalings import NetworkDenoiser
from diorama.types import Condition, Noise, TextEmbedding

B, T = 2, 4


def clip(seed=0, size=8):
    return Noise(range(seed, seed + B)).normal(4, T, size, size)


def asked():
    noise = Noise(range(10, 10 + B))
    return Condition(TextEmbedding(noise.normal(2, 16), torch.ones(B, 2).bool(), noise.normal(16) / 4), label=torch.arange(B) % 2)


def known(s=1, seed=50):
    mask = torch.ones(B, 1, T, 8, 8)
    mask[:, :, :s] = 0
    return Condition(text=asked().text, label=asked().label, frames=clip(seed), known=mask)


def framewise(network, x, level, condition):
    return together(network(apart(x), level.repeat_interleave(T), condition.repeat(T)), T)


LEVEL = torch.tensor([0.3, 0.8])
KINDS = {
    "ours": {},
    "ddpm": {"scales": False, "resample": "keeping", "closing": True},
    "adm": {"resample": "block", "closing": True},
    "ldm": {"transformer": True},
    "patches": {"patch": 2},
}


@pytest.fixture(params=KINDS, ids=str)
def network(request):
    return tiny.unet(**KINDS[request.param]).eval().requires_grad_(False)


@torch.no_grad()
def test_a_new_one_makes_of_frames_what_the_picture_network_does(network):
    inflated = Inflated(network, inflate(network, known=4))
    for condition in (asked(), known()):
        assert torch.equal(inflated(clip(), LEVEL, condition), framewise(network, clip(), LEVEL, asked()))


def trained(network, **options):
    """After steps of its own loss, by which every temporal weight has moved."""
    torch.manual_seed(0)
    temporal = inflate(network, known=4, **options)
    optimizer = torch.optim.AdamW(temporal.parameters(), lr=0.02)
    denoiser, process = NetworkDenoiser(Inflated(network, temporal), Diffusion().scaling), Diffusion()
    for step in range(4):
        process.loss(denoiser, clip(), known(step % 3), Noise([step, step + 9])).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return temporal


def test_at_alpha_1_a_trained_one_is_the_picture_network_to_the_bit(network):
    before = tiny.weights(network)
    temporal = trained(network)
    assert torch.equal(tiny.weights(network), before)  # and training left it alone
    inflated, still = Inflated(network, temporal), framewise(network, clip(), LEVEL, asked())
    with torch.no_grad():
        assert not torch.allclose(inflated(clip(), LEVEL, known()), still, atol=1e-3)
        for layer in temporal.layers:
            layer.alpha.fill_(1)
        assert torch.equal(inflated(clip(), LEVEL, known()), still)


def test_a_picture_never_meets_a_trained_layer(network):
    temporal, pictures = trained(network), clip()[:, :, 0]
    with torch.no_grad():
        assert torch.equal(Inflated(network, temporal)(pictures, LEVEL, asked()), network(pictures, LEVEL, asked()))
    assert not any(module._forward_hooks for module in network.modules())


def test_every_temporal_weight_learns(network):
    temporal = inflate(network, known=4, attends=True)
    for layer in temporal.layers:  # what begins at zero hides what is behind it
        tiny.randomised(layer)
    out = Inflated(network, temporal)(clip(), LEVEL, known())
    out.square().mean().backward()
    still = [name for name, p in temporal.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


@pytest.fixture
def blended():
    """A network of which frames are told apart by nothing but time."""
    network = tiny.unet().eval().requires_grad_(False)
    return network, tiny.randomised(inflate(network, known=4, attends=True)).requires_grad_(False)


def test_clips_do_not_meet_in_a_batch(blended):
    inflated = Inflated(*blended)
    both = inflated(clip(), LEVEL, known())
    for i in range(B):
        one = slice(i, i + 1)
        assert torch.allclose(inflated(clip()[one], LEVEL[one], known().rows(one)), both[one], atol=1e-4, rtol=1e-4)


def test_every_frame_reaches_the_last_one_and_the_known_ones_reach_all(blended):
    inflated = Inflated(*blended)
    here = inflated(clip(), LEVEL, known(1))
    changed = clip()
    changed[:, :, 0] += 1
    assert ((inflated(changed, LEVEL, known(1)) - here).abs().amax((0, 1, 3, 4)) > 1e-4).all()
    assert ((inflated(clip(), LEVEL, known(1, seed=70)) - here).abs().amax((0, 1, 3, 4)) > 1e-4).all()


def test_what_is_not_known_is_not_seen(blended):
    inflated, condition = Inflated(*blended), known(1)
    other = condition.frames.clone()
    other[:, :, 1:] = 7
    same = Condition(text=condition.text, label=condition.label, frames=other, known=condition.known)
    assert torch.equal(inflated(clip(), LEVEL, condition), inflated(clip(), LEVEL, same))


def test_frames_in_another_order_are_another_clip(blended):
    """Without a place in time, attention alone would give the frames of a shuffled clip in the same shuffle."""
    inflated, order = Inflated(*blended), torch.tensor([2, 0, 3, 1])
    free = asked()
    assert not torch.allclose(inflated(clip()[:, :, order], LEVEL, free), inflated(clip(), LEVEL, free)[:, :, order], atol=1e-3)


def test_there_is_a_layer_after_every_block(network):
    temporal = inflate(network)
    found = [network.get_submodule(name) for name in temporal.config.blocks]
    blocks = [m for m in network.modules() if isinstance(m, Block)]
    inner = {id(block.residual) for block in blocks}
    resampling = [m for m in network.modules() if isinstance(m, ResidualBlock) and id(m) not in inner]
    assert {id(m) for m in found} == {id(m) for m in blocks + resampling}


def test_saved_and_read_back_it_is_the_same(tmp_path, blended):
    network, temporal = blended
    temporal.save_pretrained(tmp_path / "temporal")
    again = Temporal.from_pretrained(tmp_path / "temporal")
    results = [Inflated(network, t)(clip(), LEVEL, known()) for t in (temporal, again)]
    assert torch.equal(*results)


def test_a_decoder_is_inflated_too():
    codec = tiny.codec().requires_grad_(False)
    temporal, z = inflate(codec.decoder), Noise(range(B)).normal(4, T, 2, 2)
    with torch.no_grad():
        still = codec.decode(apart(z))
        with temporal.between(codec.decoder, T):
            assert torch.equal(codec.decode(apart(z)), still)
        tiny.randomised(temporal)
        with temporal.between(codec.decoder, T):
            assert not torch.allclose(codec.decode(apart(z)), still)
        assert torch.equal(codec.decode(apart(z)), still)


def test_the_picture_network_that_shows_known_frames_need_not_have_them():
    network = tiny.unet().eval()
    assert inflate(network).known is None
    assert isinstance(network, UNet)
