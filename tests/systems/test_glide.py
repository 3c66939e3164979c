from dataclasses import replace

import pytest
import tiny
import torch

from diorama import cards
from diorama.codecs.patches import PatchCodec, PatchCodecConfig
from diorama.conditions.caption import CaptionConfig, CaptionEncoder
from diorama.errors import UserError
from diorama.networks.unet import UNet, UNetConfig
from diorama.systems.base import load_system
from diorama.systems.images.glide import Glide
from diorama.systems.understanding import clip
from diorama.systems.understanding.clip import Clip
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Batch, Noise

TEXTS = ["a red square", "a blue round thing", ""]
SHAPE = UNetConfig(
    channels=4, patch=2, widths=(16,), depth=1, attention=(True,), heads=2, text_width=16, embedding=32, levels=1.0
)
PLAN = Plan(steps=8, batch=4, lr=5e-3, warmup=2, ema=0.5, log_every=1, device="cpu", dtype="float32")
HOLE = torch.zeros(3, 1, 16, 16)
HOLE[:, :, 4:12, 4:12] = 1


def captions(max_tokens=8) -> CaptionEncoder:
    torch.manual_seed(0)
    return CaptionEncoder.of(TEXTS, CaptionConfig(words=300, width=16, depth=1, heads=2, max_tokens=max_tokens))


def build(random: bool = True) -> Glide:
    text, codec = captions(), PatchCodec(PatchCodecConfig(patch=1))
    network = UNet(SHAPE)
    return Glide(codec, text, tiny.randomised(network) if random else network, (), 16)


@pytest.fixture(scope="module")
def glide():
    return build().eval()


@pytest.fixture(scope="module")
def noisy_clip():
    torch.manual_seed(0)
    made = Clip.new(preset="noisy", size=16, labels=(), part=lambda name, kind: captions())
    return made.eval()


def picture(n=3):
    return Noise(range(10, 10 + n)).uniform(4, 16, 16) * 2 - 1


def batch(step=0, rank=0, world=1):
    """Two colours, each with its caption."""
    image = torch.tensor([-0.7, 0.7, -0.7, 0.7])[:, None, None, None].expand(4, 4, 16, 16).contiguous()
    return Batch(image, [TEXTS[0], TEXTS[1]] * 2)


def test_it_is_a_sampler_like_any_other(glide):
    together = glide.sample(TEXTS, steps=3, guidance=2.0, noise=Noise([7, 8, 9]))
    assert together.shape == (3, 4, 16, 16)
    assert together.abs().max() <= 1
    for i, text in enumerate(TEXTS):
        assert torch.allclose(glide.sample([text], steps=3, guidance=2.0, noise=Noise([7 + i]))[0], together[i], atol=1e-3)


def test_words_learn_with_the_network():
    trained = {name.partition(".")[0] for name, p in build().named_parameters() if p.requires_grad}
    assert trained == {"text", "network"}


def test_a_few_steps_teach_it_something():
    system, noise = build(random=False), Noise([1, 2, 3, 4])
    before = system.loss(batch(), Noise([1, 2, 3, 4])).mean().item()
    fit(system, batch, PLAN)
    assert system.loss(batch(), noise).mean().item() < before - 0.01


# --- CLIP's guidance ------------------------------------------------------------------------------


def test_clip_leads_to_pictures_it_likes_better(glide, noisy_clip):
    def liked(scale):
        pictures = glide.sample_by_clip(TEXTS[:2] * 2, noisy_clip, scale=scale, steps=6, noise=Noise(range(4)))
        return (noisy_clip.encode_image(pictures) * noisy_clip.encode_text(TEXTS[:2] * 2)).sum(1).mean()

    with torch.no_grad():
        assert liked(4.0) > liked(0.0) > liked(-4.0)


def test_at_scale_nought_it_is_the_plain_sampler(glide, noisy_clip):
    plain = glide.sample(TEXTS, guidance=1.0, steps=3, noise=Noise([0, 1, 2]))
    assert torch.equal(glide.sample_by_clip(TEXTS, noisy_clip, scale=0.0, steps=3, noise=Noise([0, 1, 2])), plain)


def test_a_clip_that_knows_no_noise_cannot_lead(glide):
    clean = Clip.build(captions(), (), clip.PRESETS["nano"])
    with pytest.raises(UserError, match="preset noisy"):
        glide.sample_by_clip(TEXTS, clean, noise=Noise([0, 1, 2]))


@torch.no_grad()
def test_clip_sees_the_noise_that_is_there(glide, noisy_clip):
    """Noise of the latents is noise of the pixels, times the codec's scale."""
    codec = PatchCodec(PatchCodecConfig(patch=2, mean=0.3, std=0.6))
    other = Glide(codec, glide.text, glide.network, (), 16)
    image, sigma = picture(), torch.tensor([0.5, 1.0, 2.0])
    noisy = image + sigma[:, None, None, None] * Noise([0, 1, 2]).normal(4, 16, 16)
    seen = other.eye(noisy_clip)(codec.encode(noisy), sigma / 0.6)
    assert torch.allclose(seen, noisy_clip.encode_image(noisy, sigma), atol=1e-5)
    assert not torch.allclose(seen, noisy_clip.encode_image(noisy), atol=1e-3)


# --- holes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tuned", [False, True], ids=["replacement alone", "inpainter"])
def test_what_is_known_stays(glide, tuned):
    model, image = glide.inpainter() if tuned else glide, picture()
    filled = model.inpaint(image, HOLE, TEXTS, steps=4, noise=Noise([0, 1, 2]))
    known = (HOLE == 0).expand_as(image)
    assert torch.allclose(filled[known], image[known], atol=1e-5)
    assert not torch.allclose(filled[~known], image[~known], atol=1e-2)


def test_an_inpainter_begins_as_the_model_it_was_and_leaves_that_alone(glide):
    tuned = glide.inpainter()
    assert tuned.network.config.given == 5  # RGBA and the mask
    arguments = {"steps": 3, "guidance": 2.0, "noise": Noise([0, 1, 2])}
    assert torch.equal(tuned.sample(TEXTS, **arguments), glide.sample(TEXTS, **{**arguments, "noise": Noise([0, 1, 2])}))
    with torch.no_grad():
        for p in tuned.parameters():
            p.add_(1)
    assert not any(torch.equal(a, b) for a, b in zip(tuned.text.parameters(), glide.text.parameters(), strict=True))


def test_the_network_is_shown_what_is_known_and_not_what_is_hidden(glide):
    tuned, image = glide.inpainter(), picture()
    seen = tuned.around(tuned.codec.encode(image), tuned.places(HOLE))
    known = (HOLE == 0).float()
    assert torch.equal(seen, torch.cat([image * known, HOLE], 1))


def test_pixels_that_are_folded_keep_their_places(glide):
    """Two by two to a place: the mask of each pixel must fall on its own four channels."""
    codec = PatchCodec(PatchCodecConfig(patch=2))
    folded, image = Glide(codec, glide.text, glide.network, (), 16), picture()
    mask = (Noise([0, 1, 2]).uniform(1, 16, 16) < 0.5).float()
    hole = folded.places(mask)
    assert torch.equal(codec.decode(codec.encode(image) * (1 - hole)), image * (1 - mask))
    assert torch.equal(codec.decode(hole), mask.expand(-1, 4, -1, -1))
    assert folded.around(codec.encode(image), hole).shape == (3, 16 + 4, 8, 8)


def test_tuning_shows_holes_and_the_network_takes_them_in(glide):
    tuned = glide.inpainter()
    z = tuned.codec.encode(picture())
    seen = tuned.shown(tuned.condition(TEXTS), z, Noise([0, 1, 2])).image
    mask = seen[:, 4:]
    assert torch.equal(seen[:, :4], z * (1 - mask))
    assert 0 < mask.mean() < 1
    fit(tuned, batch, replace(PLAN, steps=2))
    assert tuned.network.inlet.weight[:, 16:].abs().sum((0, 2, 3)).min() > 0  # of the four channels of each folded pixel too


# --- the rest -------------------------------------------------------------------------------------


def test_saved_and_loaded_it_is_the_same(glide, tmp_path):
    tuned = glide.inpainter()
    tuned.save_pretrained(tmp_path / "glide")
    again = load_system(tmp_path / "glide")
    assert isinstance(again, Glide)
    drawn = [s.inpaint(picture(), HOLE, TEXTS, steps=2, noise=Noise([0, 1, 2])) for s in (tuned, again)]
    assert torch.equal(*drawn)


def test_the_published_size():
    """3.5 B without the upsampler (Nichol et al. 2022, sec. 4)."""
    assert abs(cards.GLIDE.presets["paper"] / cards.GLIDE.published["parameters"] - 1) < 0.03
