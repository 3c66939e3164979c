"""Codecs whose decoder's norms take the latent: MoVQ."""

from dataclasses import replace

import pytest
import tiny
import torch

from diorama.codecs.conv import PRESETS, ConvCodec, ConvCodecConfig
from diorama.codecs.quantise import QuantisedCodec, VectorQuantiser, VectorQuantiserConfig
from diorama.networks.layers import GroupNorm, SpatialNorm
from diorama.networks.unet import AttentionBlock
from diorama.types import Noise

SMALL = ConvCodecConfig(latent=4, patch=2, widths=(8, 16), variational=False, attention=True, spatial=True)


def codec(**changes):
    return tiny.randomised(ConvCodec(replace(SMALL, **changes)))


@pytest.mark.parametrize("spatial", [(8,), (8, 4), (4, 8, 4)])
@torch.no_grad()
def test_the_norm_is_its_formula_at_every_place(spatial):
    axes = len(spatial)
    norm, x, z = (
        tiny.randomised(SpatialNorm(axes, 16, 3)),
        torch.randn(2, 16, *spatial),
        torch.randn(2, 3, *(n // 2 for n in spatial)),
    )
    for axis in range(2, z.ndim):
        z = z.repeat_interleave(2, axis)
    plain = GroupNorm(16)
    plain.load_state_dict(norm.norm.state_dict())
    expected = plain(x) * norm.gain(z) + norm.offset(z)
    small = z[(slice(None), slice(None), *[slice(None, None, 2)] * axes)]
    assert torch.allclose(norm(x, small), expected, atol=1e-5)


@torch.no_grad()
def test_a_place_is_normed_by_its_own_latent_alone():
    norm, x, z = tiny.randomised(SpatialNorm(2, 8, 3)), torch.randn(1, 8, 4, 4), torch.randn(1, 3, 2, 2)
    before = norm(x, z)
    z[..., 0, 1] += 1
    changed = (norm(x, z) != before).any(1)[0]
    assert changed.tolist() == [[False, False, True, True]] * 2 + [[False] * 4] * 2


@pytest.mark.parametrize("spatial", [(16,), (8, 16), (4, 8, 8)])
@torch.no_grad()
def test_shapes(spatial):
    made, x = codec(axes=len(spatial)), torch.randn(2, 4, *spatial)
    z = made.encode(x)
    assert z.shape == (2, 4, *(n // 4 for n in spatial))
    assert made.decode(z).shape == x.shape


def test_every_norm_of_the_decoder_and_none_of_the_encoder():
    made = codec()
    assert not any(isinstance(module, SpatialNorm) for module in made.encoder.modules())
    norms = [module for module in made.decoder.modules() if isinstance(module, GroupNorm)]
    inner = [module.norm for module in made.decoder.modules() if isinstance(module, SpatialNorm)]
    assert set(norms) == set(inner)
    assert any(isinstance(module, AttentionBlock) and isinstance(module.norm, SpatialNorm) for module in made.decoder)


def test_attention_alone_leaves_plain_norms():
    made = codec(spatial=False)
    assert not any(isinstance(module, SpatialNorm) for module in made.modules())
    assert made.decode(made.encode(torch.randn(1, 4, 8, 8))).shape == (1, 4, 8, 8)


@torch.no_grad()
def test_saved_and_read_it_is_the_same(tmp_path):
    made, x = codec(), Noise([0]).normal(4, 16, 16)
    made.save_pretrained(tmp_path / "codec")
    again = ConvCodec.from_pretrained(tmp_path / "codec")
    assert torch.equal(again.decode(again.encode(x)), made.decode(made.encode(x)))


def test_gradients_go_through_the_codes_to_every_weight():
    torch.manual_seed(0)
    made = QuantisedCodec(
        tiny.randomised(ConvCodec(SMALL)), VectorQuantiser(VectorQuantiserConfig(codes=16, width=4, unit=False))
    )
    made.decode(made.quantise(made.encode(Noise([0, 1]).normal(4, 16, 16))).z_q).square().mean().backward()
    assert [name for name, p in made.codec.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_published_size():
    """0.27 B (Arkhipkin et al. 2023, sec. 2), with 16,384 codes of four numbers."""
    with torch.device("meta"):
        made = ConvCodec(PRESETS["movq-paper"])
    assert made.config.stride == 8
    assert sum(p.numel() for p in made.parameters()) + 16_384 * 4 == pytest.approx(0.27e9, rel=0.03)


# --- diffusers' own -------------------------------------------------------------------------------

WHY = "diffusers is not installed: the decoder is held to it where it is"


@torch.no_grad()
def test_the_norm_is_diffusers_own():
    theirs = pytest.importorskip("diffusers.models.attention_processor", reason=WHY).SpatialNorm(256, 4)
    tiny.randomised(theirs)
    ours = SpatialNorm(2, 256, 4)
    take_norm(ours, theirs)
    x, z = torch.randn(2, 256, 8, 8), torch.randn(2, 4, 3, 5)
    x = x[..., :6, :]
    assert torch.allclose(ours(x, z), theirs(x, z), atol=1e-4)


@torch.no_grad()
def test_the_decoder_is_diffusers_own():
    """All of it, where no level is wider than another: there ours widens elsewhere. Theirs has 32 groups whatever the width."""
    vae = pytest.importorskip("diffusers.models.autoencoders.vae", reason=WHY)
    theirs = vae.Decoder(
        in_channels=4,
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        block_out_channels=(256, 256),
        layers_per_block=1,
        norm_type="spatial",
    )
    torch.manual_seed(0)
    ours = ConvCodec(replace(SMALL, channels=3, patch=1, widths=(256, 256))).decoder
    take(ours, theirs)
    z = Noise([0, 1]).normal(4, 4, 4)
    expected = theirs(z, z)
    assert expected.std() > 0.1
    assert torch.allclose(ours(z), expected, atol=1e-4)


def take(ours, theirs):
    layers = iter(ours)
    copy(next(layers), theirs.conv_in)
    middle = theirs.mid_block
    take_residual(next(layers), middle.resnets[0])
    take_attention(next(layers), middle.attentions[0])
    take_residual(next(layers), middle.resnets[1])
    for block in theirs.up_blocks:
        for i, residual in enumerate(block.resnets):
            take_residual(next(layers), residual)
            if hasattr(block, "attentions"):
                take_attention(next(layers), block.attentions[i])
        for resample in block.upsamplers or ():
            copy(next(layers), resample)
    take_norm(next(layers), theirs.conv_norm_out)
    next(layers)  # SiLU
    copy(next(layers), theirs.conv_out)
    assert next(layers, None) is None


def take_residual(ours, theirs):
    for name in ("norm1", "norm2"):
        take_norm(getattr(ours, name), getattr(theirs, name))
    copy(ours.conv1, theirs.conv1)
    copy(ours.conv2, theirs.conv2)


def take_attention(ours, theirs):
    take_norm(ours.norm, theirs.spatial_norm)
    for kind in ("weight", "bias"):
        parts = [getattr(part, kind) for part in (theirs.to_q, theirs.to_k, theirs.to_v)]
        getattr(ours.attention.qkv, kind).copy_(torch.cat(parts))
    copy(ours.attention.out, theirs.to_out[0])


def take_norm(ours, theirs):
    copy(ours.norm, theirs.norm_layer)
    copy(ours.gain, theirs.conv_y)
    copy(ours.offset, theirs.conv_b)


def copy(ours, theirs):
    for mine, value in zip(ours.parameters(), theirs.parameters(), strict=True):
        mine.copy_(value)
