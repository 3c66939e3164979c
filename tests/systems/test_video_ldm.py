from dataclasses import replace

import pytest
import tiny
import torch

from diorama import cards
from diorama.adapters.temporal import apart, together
from diorama.codecs.patches import PatchCodec, PatchCodecConfig
from diorama.conditions.caption import CaptionEncoder
from diorama.errors import UserError
from diorama.guidance.classifier_free import by_frames, classifier_free
from diorama.networks.unet import UNet, UNetConfig, widened
from diorama.processes.diffusion import Diffusion
from diorama.systems.images.flow import Flow
from diorama.systems.video.decoder import ClipCodec, PerFrame
from diorama.systems.video.video_ldm import VideoLDM, published, shown
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Batch, Condition, Noise, mix

PLAN = Plan(steps=12, batch=4, lr=1e-2, warmup=2, ema=0.5, device="cpu", dtype="float32")
WORDS = ["a red square", "a blue thing"]
T = 4


def of_pixels():
    """A flow of pixels of 8 by 8, which no decoder need learn for."""
    shape = UNetConfig(channels=4, widths=(16,), depth=1, attention=(True,), heads=2, text_width=16, labels=2, embedding=16)
    codec = PatchCodec(PatchCodecConfig(channels=4, patch=1, std=0.5))
    return Flow(codec, tiny.sentence_encoder(), tiny.randomised(UNet(shape)), tiny.STYLES, 8)


@pytest.fixture(params=["pixels", "latents"])
def system(request):
    torch.manual_seed(0)
    system = VideoLDM.on(of_pixels() if request.param == "pixels" else tiny.flow())
    system.frames = T
    return system.eval()


def moving(n=4, size=8):
    """A bright square that goes a step to the right in every frame."""
    image = torch.full((n, 4, T, size, size), -0.5)
    for k in range(n):
        for t in range(T):
            x = (k + t) % (size - 2)
            image[k, :, t, 2 : size - 2, x : x + 3] = 0.7
    return image


def batches(size):
    return lambda step, rank=0, world=1: Batch(moving(size=size), ["a red square"] * 4)


# --- what it is -----------------------------------------------------------------------------------


def test_a_new_one_paints_every_frame_as_the_picture_model_would(system):
    """From the noise of each frame, and at any guidance."""
    clip = system.sample(WORDS, ["flat", None], steps=3, guidance=2.0, noise=Noise([5, 6]))
    painter = system.painter
    z = painter.process.prior((4, T, *[painter.size // painter.codec.config.stride] * 2), Noise([5, 6]))
    words = [word for word in WORDS for _ in range(T)]
    styles = [style for style in ("flat", None) for _ in range(T)]
    guided = classifier_free(painter.denoiser, 2.0)
    pictures = painter.paint(guided, painter.condition(words, styles), start=apart(z), steps=3, noise=Noise(range(8)))
    assert torch.allclose(apart(clip), pictures, atol=1e-5)


def test_a_clip_is_the_same_alone_and_in_a_batch(system):
    tiny.randomised(system.temporal)
    both = system.sample(WORDS, steps=2, noise=Noise([5, 6]))
    assert both.shape == (2, 4, T, system.size, system.size)
    assert torch.allclose(system.sample(WORDS[1:], steps=2, noise=Noise([6])), both[1:], atol=1e-3)


def test_only_what_is_new_learns(system):
    tiny.randomised(system.decoder)
    before = [tiny.weights(part) for part in (system.codec, system.text, system.network)]
    temporal = tiny.weights(system.temporal)
    fit(system, batches(system.size), PLAN)
    assert all(torch.equal(tiny.weights(p), b) for p, b in zip((system.codec, system.text, system.network), before, strict=True))
    assert not torch.equal(tiny.weights(system.temporal), temporal)


def test_frozen_parts_are_never_in_training(system):
    system.train()
    assert system.temporal.training
    assert not any(module.training for part in (system.codec, system.text, system.network) for module in part.modules())


def test_it_learns_what_frames_have_to_do_with_each_other():
    torch.manual_seed(0)
    system, noise = VideoLDM.on(of_pixels()), [mix(7, i) for i in range(4)]
    batch = batches(8)(0)
    with torch.no_grad():
        before = system.loss(batch, Noise(noise)).mean()
    fit(system, batches(8), PLAN)
    with torch.no_grad():
        assert system.loss(batch, Noise(noise)).mean() < 0.9 * before


def test_saved_and_loaded_it_is_the_same(system, tmp_path):
    tiny.randomised(system.temporal)
    system.save_pretrained(tmp_path / "model")
    again = VideoLDM.from_pretrained(tmp_path / "model")
    assert (again.styles, again.base, again.frames) == (tiny.STYLES, "flow", T)
    clips = [s.sample(WORDS, steps=2, noise=Noise([0, 1])) for s in (system, again)]
    assert torch.equal(*clips)


# --- known frames ---------------------------------------------------------------------------------


def test_known_frames_are_shown_clean_and_the_rest_not_at_all():
    z = Noise(range(3)).normal(4, T, 2, 2)
    condition = shown(Condition(), z, torch.tensor([0, 1, 2]))
    for i in range(3):
        assert torch.equal(condition.frames[i, :, :i], z[i, :, :i])
        assert not condition.frames[i, :, i:].any()
        assert condition.known[i].mean((0, 2, 3)).tolist() == [float(t >= i) for t in range(T)]


def test_each_sample_learns_with_as_many_known_frames_as_its_own_noise_says(system, monkeypatch):
    seen = []
    loss = Diffusion.loss
    monkeypatch.setattr(
        Diffusion, "loss", lambda self, model, x, c, noise: seen.append(c.known) or loss(self, model, x, c, noise)
    )
    system.loss(Batch(moving(size=system.size).repeat(8, 1, 1, 1, 1), ["a red square"] * 32), Noise(range(32)))
    known = (T - seen[0].mean((1, 3, 4)).sum(1)).tolist()
    assert set(known) == {0.0, 1.0, 2.0}


def test_the_first_frame_stays_what_it_was(system):
    tiny.randomised(system.temporal)
    first = moving(2, system.size)[:, :, :1]
    clip = system.sample(WORDS, first=first, steps=2, noise=Noise([0, 1]))
    kept = together(system.codec.decode(system.codec.encode(apart(first))).clamp(-1, 1), 1)
    if system.decoder.layers:
        return  # its decoder sees what comes next
    assert torch.allclose(clip[:, :, :1], kept, atol=1e-5)
    other = system.sample(WORDS, first=-first, steps=2, noise=Noise([0, 1]))
    assert not torch.allclose(clip[:, :, 1:], other[:, :, 1:], atol=1e-2)


def test_a_long_clip_begins_as_a_short_one_and_goes_on(system):
    tiny.randomised(system.temporal)
    short, long = (system.sample(WORDS, frames=n, steps=2, noise=Noise([0, 1])) for n in (T, 7))
    assert long.shape[2] == 7
    if not system.decoder.layers:
        assert torch.allclose(long[:, :, :T], short, atol=1e-5)


@pytest.mark.parametrize("t", [1, 2])
def test_a_model_of_hardly_any_frames_goes_on_too(system, t):
    system.frames = t
    assert system.sample(WORDS[:1], frames=4, steps=1, noise=Noise([0])).shape[2] == 4


def test_pressing_what_is_known_is_a_line_through_both(system):
    tiny.randomised(system.temporal)
    z = Noise([1, 2]).normal(4, T, 4, 4)
    asked = shown(system.painter.condition(WORDS), Noise([3, 4]).normal(4, T, 4, 4), 1)
    blind = shown(asked, torch.zeros_like(z), 0)
    sigma = torch.tensor([0.5, 2.0])
    with torch.no_grad():
        with_it, without = system.denoiser(z, sigma, asked), system.denoiser(z, sigma, blind)
        pressed = by_frames(system.denoiser, 3.0)(z, sigma, asked)
    assert torch.allclose(pressed, without + 3 * (with_it - without), atol=1e-3)
    assert not torch.allclose(with_it, without, atol=1e-3)


# --- the decoder ----------------------------------------------------------------------------------


def test_a_codec_of_pixels_has_no_decoder_to_teach():
    system = VideoLDM.on(of_pixels())
    assert [phase.name for phase in system.phases()] == ["temporal"]
    assert [phase.name for phase in VideoLDM.on(tiny.flow()).phases()] == ["temporal", "decoder", "critic"]


def test_frames_are_drawn_apart():
    drawn = PerFrame(Noise([1, 2]), 3).normal(4)
    assert drawn.shape == (6, 4)
    assert len({tuple(row) for row in drawn.tolist()}) == 6
    assert torch.equal(drawn[3:], PerFrame(Noise([2]), 3).normal(4))


def test_a_clip_codec_with_new_layers_is_the_picture_codec():
    system = VideoLDM.on(tiny.flow())
    z = Noise([0, 1]).normal(4, T, 4, 4)
    with torch.no_grad():
        assert torch.equal(apart(system.clips.decode(z)), system.codec.decode(apart(z)))


@pytest.mark.parametrize("whole", [False, True])
def test_the_decoder_learns_and_what_is_not_to_learn_stays(whole):
    torch.manual_seed(0)
    painter = VideoLDM.on(tiny.flow())
    clips = ClipCodec(painter.codec, painter.decoder, painter.critic, whole)
    parts = {"encoder": clips.codec.encoder, "decoder": clips.codec.decoder, "temporal": clips.temporal, "critic": clips.critic}
    before = {name: tiny.weights(part) for name, part in parts.items()}
    fit(clips, batches(16), replace(PLAN, steps=2))
    moved = {name for name, part in parts.items() if not torch.equal(tiny.weights(part), before[name])}
    assert moved == {"temporal", "critic"} | ({"decoder"} if whole else set())


# --- what does not fit ----------------------------------------------------------------------------


def test_what_does_not_fit_is_told():
    painter = of_pixels()
    with pytest.raises(UserError, match="size 64 is not what the picture model paints: use --size 8"):
        VideoLDM.new(preset="nano", size=64, labels=(), part=lambda name, kind: painter)
    with pytest.raises(UserError, match="preset 'huge'"):
        VideoLDM.new(preset="huge", size=8, labels=(), part=None)
    with pytest.raises(UserError, match="flow cannot be set in motion"):
        VideoLDM.on(Flow(painter.codec, painter.text, widened(painter.network, 4), (), 8))


def test_the_published_picture_network_has_its_published_size():
    def part(name, kind):
        return CaptionEncoder.of(["a"]) if kind is CaptionEncoder else kind(kind.Config())

    with torch.device("meta"):
        network = published(256, part).network
    count = cards.VIDEO_LDM.published["picture network"]
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(count, rel=0.03)
