import pytest
import torch
from torch import nn

from diorama.networks.attention import Attention
from diorama.networks.prompts import AWAY, MEANT, PromptConfig, PromptEncoder, Prompts
from diorama.networks.two_way import MaskDecoder, MaskDecoderConfig
from diorama.networks.vit import ViT, ViTConfig

SIDE, WIDTH = 4, 32


@pytest.fixture
def parts():
    torch.manual_seed(0)
    prompts = PromptEncoder(PromptConfig(width=WIDTH, size=16, side=SIDE, vector=5))
    decoder = MaskDecoder(MaskDecoderConfig(width=WIDTH, heads=4, hidden=48))
    return prompts, decoder, torch.randn(2, WIDTH, SIDE, SIDE)


def answered(parts, prompts):
    encoder, decoder, image = parts
    tokens, dense = encoder(prompts)
    with torch.no_grad():
        return decoder(image + dense, encoder.places(), tokens)


def clicks(seed=0, n=3):
    generator = torch.Generator().manual_seed(seed)
    points = 16 * torch.rand(2, n, 2, generator=generator)
    return Prompts.at(points, torch.tensor([[MEANT, AWAY, MEANT]] * 2)[:, :n])


# --- attention that knows where things are ----------------------------------------------------------


@torch.no_grad()
def test_places_are_for_queries_and_keys_alone():
    torch.manual_seed(0)
    ours, theirs = Attention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.in_proj_weight.copy_(ours.qkv.weight)
    theirs.in_proj_bias.copy_(ours.qkv.bias)
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    x, at = torch.randn(2, 5, 16), torch.randn(1, 5, 16)
    assert torch.allclose(ours(x, at=at), theirs(x + at, x + at, x)[0], atol=1e-6)


@torch.no_grad()
def test_across_without_a_sink_it_is_torchs_own():
    torch.manual_seed(0)
    ours, theirs = Attention(16, 4, 16, own=False, sink=False), nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.in_proj_weight.copy_(torch.cat([ours.qkv.weight, ours.context_kv.weight]))
    theirs.in_proj_bias.copy_(torch.cat([ours.qkv.bias, ours.context_kv.bias]))
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    x, context, at, context_at = (torch.randn(2, n, 16) for n in (5, 3, 5, 3))
    expected = theirs(x + at, context + context_at, context)[0]
    assert torch.allclose(ours(x, context, at=at, context_at=context_at), expected, atol=1e-6)


# --- an encoder with windows ------------------------------------------------------------------------


@torch.no_grad()
def test_a_window_as_wide_as_the_picture_is_none():
    torch.manual_seed(0)
    plain, cut = (ViT(ViTConfig(size=16, width=16, depth=2, heads=2, window=w, whole=1)) for w in (0, 4))
    cut.load_state_dict(plain.state_dict())
    image = torch.randn(2, 3, 16, 16)
    assert torch.allclose(cut(image), plain(image), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("window", [2, 3])  # the second reaches beyond the picture's 4 x 4 patches
def test_a_block_sees_its_own_window_alone(window):
    torch.manual_seed(0)
    vit = ViT(ViTConfig(size=16, width=16, depth=2, heads=2, window=window, whole=1))
    x = torch.randn(1, 16, 16)
    other = x.clone()
    other[:, 0] = torch.randn(16)
    changed = (vit._within(vit.transformer.blocks[0], other) - vit._within(vit.transformer.blocks[0], x)).abs().amax(-1) > 1e-5
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[:window, :window] = True
    assert torch.equal(changed.reshape(4, 4), expected)


# --- prompts and the decoder ------------------------------------------------------------------------


def test_the_order_of_points_says_nothing(parts):
    prompts = clicks()
    turned = Prompts(prompts.points[:, [2, 0, 3, 1]], prompts.says[:, [2, 0, 3, 1]])
    for a, b in zip(answered(parts, prompts), answered(parts, turned), strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    swapped = Prompts(prompts.points[:, [1, 0, 2, 3]], prompts.says)  # but which of them says what does
    assert not torch.allclose(answered(parts, prompts).logits, answered(parts, swapped).logits, atol=1e-2)


def test_where_a_point_that_is_none_lies_says_nothing(parts):
    prompts = clicks()
    elsewhere = prompts.points.clone()
    elsewhere[:, -1] = 9.0
    assert torch.equal(answered(parts, prompts).logits, answered(parts, prompts._replace(points=elsewhere)).logits)


def test_a_row_is_answered_by_itself(parts):
    encoder, decoder, image = parts
    prompts = clicks()
    together = answered(parts, prompts)
    alone = answered((encoder, decoder, image[1:]), Prompts(prompts.points[1:], prompts.says[1:]))
    assert torch.allclose(together.logits[1:], alone.logits, atol=1e-4)


def test_a_vector_of_zeros_says_as_much_as_a_point_that_is_none(parts):
    prompts = clicks()
    nothing = answered(parts, prompts._replace(vector=torch.zeros(2, 5)))
    padded = answered(parts, prompts.clicked(torch.zeros(2, 1, 2), torch.full((2, 1), -1)))
    assert torch.allclose(nothing.logits, padded.logits, atol=1e-5)
    assert not torch.allclose(nothing.logits, answered(parts, prompts._replace(vector=torch.ones(2, 5))).logits, atol=1e-2)


def test_who_stands_alone():
    one, box = Prompts.at(torch.zeros(1, 1, 2)), Prompts.box(torch.tensor([[0, 0, 4, 4]]))
    assert one.alone.all()
    assert box.alone.all()
    for more in (clicks(), box.clicked(torch.zeros(1, 1, 2), torch.tensor([[AWAY]])), one._replace(mask=torch.zeros(1, 16, 16))):
        assert not more.alone.any()
    assert not one._replace(vector=torch.ones(1, 5)).alone.any()


def test_features_of_where_are_those_of_the_places(parts):
    encoder = parts[0]
    middle = torch.tensor([[6.0, 10.0]]) / 16  # of the place in the third line, second column
    assert torch.allclose(encoder.where(middle), encoder.places()[0, 2 * SIDE + 1], atol=1e-6)


# --- against the published code ----------------------------------------------------------------------


@torch.no_grad()
def test_prompts_and_decoder_are_those_of_transformers():
    """The same weights under the names of transformers' SamModel, the same points, the same masks and fits."""
    sam = pytest.importorskip("transformers.models.sam.modeling_sam")
    config = pytest.importorskip("transformers").SamConfig(
        prompt_encoder_config={"hidden_size": WIDTH, "image_size": 16, "patch_size": 4, "mask_input_channels": 16},
        mask_decoder_config={
            "hidden_size": WIDTH,
            "num_attention_heads": 4,
            "mlp_dim": 48,
            "iou_head_hidden_dim": WIDTH,
            "layer_norm_eps": 1e-5,
        },
        vision_config={
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
            "output_channels": WIDTH,
            "num_pos_feats": WIDTH // 2,
        },
    )
    torch.manual_seed(0)
    theirs = sam.SamModel(config).eval()
    theirs.set_attn_implementation("eager")
    encoder, decoder = (
        PromptEncoder(PromptConfig(width=WIDTH, size=16, side=SIDE)),
        MaskDecoder(MaskDecoderConfig(width=WIDTH, heads=4, hidden=48)),
    )
    take(encoder, decoder, theirs)
    image, points, says = torch.randn(1, WIDTH, SIDE, SIDE), 16 * torch.rand(1, 3, 2), torch.tensor([[MEANT, AWAY, MEANT]])
    for mask in (None, torch.randn(1, 16, 16)):
        tokens, dense = encoder(Prompts.at(points, says)._replace(mask=mask))
        ours = decoder(image + dense, encoder.places(), tokens)
        for multiple in (True, False):  # of theirs, which count from the middles of pixels
            found = theirs(
                image_embeddings=image,
                input_points=points[:, None] - 0.5,
                input_labels=says[:, None],
                input_masks=None if mask is None else mask[None],
                multimask_output=multiple,
            )
            rows = slice(1, None) if multiple else slice(0, 1)
            assert torch.allclose(found.pred_masks[0], ours.logits[:, rows], atol=1e-4)
            assert torch.allclose(found.iou_scores[0], ours.iou[:, rows], atol=1e-4)


def take(encoder, decoder, theirs):
    """Copy all weights, name by name."""
    prompts, masks = theirs.prompt_encoder, theirs.mask_decoder
    encoder.directions.copy_(theirs.shared_image_embedding.positional_embedding)
    rows = [prompts.not_a_point_embed, *prompts.point_embed]
    encoder.says.weight.copy_(torch.cat([row.weight for row in rows]))
    encoder.no_mask.copy_(prompts.no_mask_embed.weight[0])
    for place, part in ((0, "conv1"), (1, "layer_norm1"), (3, "conv2"), (4, "layer_norm2"), (6, "conv3")):
        encoder.mask[place].load_state_dict(getattr(prompts.mask_embed, part).state_dict())
    decoder.asked.copy_(torch.cat([masks.iou_token.weight, masks.mask_tokens.weight]))
    for ours, block in zip(decoder.blocks, masks.transformer.layers, strict=True):
        attend(ours.own, block.self_attn, own=True)
        attend(ours.look, block.cross_attn_token_to_image)
        attend(ours.tell, block.cross_attn_image_to_token)
        ours.mlp[0].load_state_dict(block.mlp.lin1.state_dict())
        ours.mlp[2].load_state_dict(block.mlp.lin2.state_dict())
        for norm, name in zip(ours.norms, ("layer_norm1", "layer_norm2", "layer_norm3", "layer_norm4"), strict=True):
            norm.load_state_dict(getattr(block, name).state_dict())
    attend(decoder.look, masks.transformer.final_attn_token_to_image)
    decoder.norm.load_state_dict(masks.transformer.layer_norm_final_attn.state_dict())
    for place, part in ((0, "upscale_conv1"), (1, "upscale_layer_norm"), (3, "upscale_conv2")):
        decoder.enlarge[place].load_state_dict(getattr(masks, part).state_dict())
    for ours, mlp in zip(
        [*decoder.kernels, decoder.iou], [*masks.output_hypernetworks_mlps, masks.iou_prediction_head], strict=True
    ):
        for place, layer in zip((0, 2, 4), (mlp.proj_in, *mlp.layers, mlp.proj_out), strict=True):
            ours[place].load_state_dict(layer.state_dict())


def attend(ours, theirs, own=False):
    three = [theirs.q_proj, theirs.k_proj, theirs.v_proj]
    split = (three, []) if own else (three[:1], three[1:])
    for layer, parts in zip((ours.qkv, ours.context_kv), split, strict=True):
        if parts:
            layer.weight.copy_(torch.cat([part.weight for part in parts]))
            layer.bias.copy_(torch.cat([part.bias for part in parts]))
    ours.out.load_state_dict(theirs.out_proj.state_dict())
