from dataclasses import replace

import pytest
import tiny
import torch
from test_glide import HOLE, PLAN, SHAPE, TEXTS, batch, captions, picture

from diorama import cards
from diorama.codecs.patches import PatchCodec, PatchCodecConfig
from diorama.conditions.picture import PictureWords, PictureWordsConfig
from diorama.data.open import open_data
from diorama.errors import UserError
from diorama.networks.prior import PriorConfig, PriorTransformer
from diorama.networks.towers import Heads, HeadsConfig, ImageTower, TowerConfig
from diorama.networks.unet import UNet
from diorama.systems.base import load_system
from diorama.systems.images.unclip import Unclip
from diorama.systems.understanding.clip import Clip
from diorama.train import Parts
from diorama.training.loop import fit
from diorama.types import Batch, Condition, Noise

WIDTH = 8  # of CLIP's space


def build() -> Unclip:
    torch.manual_seed(0)
    image = ImageTower(TowerConfig(size=16, patch=4, widths=(16,), heads=0, dropout=0.0))
    heads = Heads(HeadsConfig(image_width=16, text_width=16, hidden=16, width=WIDTH, dropout=0.0))
    prior = PriorTransformer(PriorConfig(channels=WIDTH, text_width=16, words=8, width=16, depth=1, heads=2))
    words = PictureWords(PictureWordsConfig(channels=WIDTH, text_width=16))
    codec, network = PatchCodec(PatchCodecConfig(patch=1)), tiny.randomised(UNet(SHAPE))
    frozen = {"image": image, "sentence": captions(), "heads": heads}
    return Unclip(codec, captions(), network, (), 16, **frozen, prior=prior, words=words)


@pytest.fixture(scope="module")
def unclip():
    return build().eval()


def test_clips_vectors_have_entries_of_size_one(unclip):
    z = unclip.vector(picture())
    assert torch.allclose(z.square().mean(1), torch.ones(3), atol=1e-5)
    text = unclip.sentences(TEXTS)
    assert torch.allclose(text.pooled.norm(dim=1), torch.tensor([1.0, 1.0, 0.0]), atol=1e-5)  # an empty sentence asks for nothing
    whole = Clip(unclip.image, unclip.sentence, unclip.heads, None)
    assert torch.allclose(z, whole.encode_image(picture()) * WIDTH**0.5, atol=1e-5)
    assert torch.allclose(text.pooled[:2], whole.encode_text(TEXTS[:2]), atol=1e-5)


def test_the_prior_predicts_the_clean_vector(unclip):
    """Its loss is the squared error of what it says itself, not of noise (Ramesh et al. 2022, eq. 2)."""
    loss = unclip.prior_loss(batch(), Noise(range(4)))
    noise, z = Noise(range(4)), unclip.vector(batch().image)
    asked = Condition(text=unclip.sentences(batch().text)).drop({"text": 0.1}, noise)
    sigma = unclip.prior_process.law(noise)
    x = z + sigma[:, None] * noise.normal(WIDTH)
    said = unclip.prior(x / (1 + sigma[:, None] ** 2).sqrt(), sigma.log() / 4, asked)
    assert torch.allclose(loss, (said - z).square().mean(1), rtol=1e-4)


def test_each_phase_trains_its_own_and_clip_stays(unclip):
    system = build()
    before = {name: p.clone() for name, p in system.named_parameters()}
    fit(system, batch, replace(PLAN, steps=2))
    moved = {name.partition(".")[0] for name, p in system.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"prior", "text", "words", "network"}
    assert not any(part.training for part in system.train().clip)
    assert [phase.name for phase in system.phases()] == ["prior", "decoder"]


def test_vector_and_words_are_dropped_each_by_itself(unclip):
    """Seen over many draws: both, either, and neither."""
    n = 200
    noise, z = Noise(range(n)), unclip.codec.encode(picture(1)).expand(n, -1, -1, -1)
    text = unclip.text([TEXTS[0]] * n)
    mask = unclip.shown(Condition(text=text).drop(unclip.dropped, noise), z, noise).text.mask
    words, vector = mask[:, 0], mask[:, -1]
    assert (words & vector).any() and (~words & ~vector).any()
    assert abs(words.float().mean().item() - 0.5) < 0.15
    assert abs(vector.float().mean().item() - 0.9) < 0.1


def test_of_two_vectors_the_nearer_to_the_sentence_is_kept(unclip, monkeypatch):
    """With the draws exchanged for known ones, by row."""
    near = unclip.sentences(TEXTS[:2]).pooled
    draws = iter([torch.stack([near[0], -near[1]]), torch.stack([-near[0], near[1]])])
    process = type("Known", (), {"prior": lambda *_: None, "sample": lambda *_, **__: next(draws)})()
    monkeypatch.setattr(Unclip, "prior_process", process)
    monkeypatch.setattr(Unclip, "prior_denoiser", None)
    assert torch.equal(unclip.imagine(TEXTS[:2], noise=Noise([0, 1])), near)


def test_a_sentence_becomes_a_picture_the_same_alone_and_in_a_batch(unclip):
    how = {"steps": 2, "guidance": 1.0}
    vectors, together = unclip.imagine(TEXTS, noise=Noise([7, 8, 9])), unclip.sample(TEXTS, noise=Noise([7, 8, 9]), **how)
    assert together.shape == (3, 4, 16, 16)
    for i, text in enumerate(TEXTS):
        assert torch.allclose(unclip.imagine([text], noise=Noise([7 + i]))[0], vectors[i], atol=1e-3)
        assert torch.allclose(unclip.sample([text], noise=Noise([7 + i]), **how)[0], together[i], atol=1e-2)


def test_the_picture_depends_on_the_vector_and_on_the_words(unclip):
    z, how = unclip.vector(picture(2)), {"steps": 2, "guidance": 1.0}
    base = unclip.decode(z, TEXTS[:2], noise=Noise([0, 1]), **how)
    for other in (unclip.decode(z.flip(0), TEXTS[:2], noise=Noise([0, 1]), **how), unclip.decode(z, noise=Noise([0, 1]), **how)):
        assert not torch.allclose(other, base, atol=1e-3)


def test_a_vector_that_is_not_there_asks_for_nothing(unclip):
    """The decoder is then the GLIDE it stands on."""
    z = torch.zeros(2, WIDTH)
    plain = unclip.paint(unclip.denoiser, unclip.condition(TEXTS[:2]), steps=2, noise=Noise([0, 1]))
    assert torch.allclose(unclip.decode(z, TEXTS[:2], guidance=1.0, steps=2, noise=Noise([0, 1])), plain, atol=1e-4)
    filled = unclip.inpaint(picture(), HOLE, TEXTS, steps=2, noise=Noise([0, 1, 2]))
    assert torch.allclose(filled[:, :, 0], picture()[:, :, 0], atol=1e-5)


def test_an_inpainter_sees_what_is_known_beside_the_vector(unclip):
    tuned = unclip.inpainter()
    text = tuned.text(TEXTS)
    condition = tuned.shown(Condition(text=text), tuned.codec.encode(picture()), Noise([0, 1, 2]))
    assert condition.image is not None
    assert condition.text.mask.shape[1] == text.mask.shape[1] + tuned.words.config.words
    assert tuned.loss(Batch(picture(), TEXTS), Noise([0, 1, 2])).isfinite().all()


# --- pictures from pictures -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def quiet():
    """Its network says nothing, so every picture is the start's alone and the way back is exact in its limit."""
    made = build().eval()
    for p in made.network.outlet[-1].parameters():
        torch.nn.init.zeros_(p)
    return made


def test_ends_of_the_way_between_two_pictures_are_their_own(quiet):
    a, b = picture(2).flip(0), picture(2)
    for share, own in ((0.0, a), (1.0, b)):
        z, start = quiet.invert(own, steps=4)
        expected = quiet.decode(z, start=start, steps=4, guidance=1.0, noise=Noise([0, 1]))
        assert torch.allclose(quiet.interpolate(a, b, share, steps=4, noise=Noise([0, 1])), expected, atol=1e-4)


def test_an_edit_of_nothing_is_the_picture_inverted(unclip):
    z, start = unclip.invert(picture(2), steps=5)
    kept = unclip.decode(z, start=start, steps=5, guidance=1.0, noise=Noise([0, 1]))
    same = unclip.edit(picture(2), TEXTS[:1] * 2, TEXTS[1:2] * 2, 0.0, steps=5, noise=Noise([0, 1]))
    assert torch.allclose(same, kept, atol=1e-4)


def test_variations_differ_by_their_noise(unclip):
    one = picture(1).expand(2, -1, -1, -1)
    first, second = unclip.variations(one, steps=2, noise=Noise([0, 1]))
    assert not torch.allclose(first, second, atol=1e-3)


# --- the rest -------------------------------------------------------------------------------------


def test_saved_and_loaded_it_is_the_same(unclip, tmp_path):
    unclip.save_pretrained(tmp_path / "unclip")
    again = load_system(tmp_path / "unclip")
    assert isinstance(again, Unclip)
    drawn = [s.sample(TEXTS, steps=2, noise=Noise([0, 1, 2])) for s in (unclip, again)]
    assert torch.equal(*drawn)


def test_a_new_one_stands_on_a_saved_clip(picture_folder, base, tmp_path):
    clip = Clip.new(preset="nano", size=16, labels=(), part=lambda name, kind: captions())
    clip.save_pretrained(tmp_path / "clip")
    pictures, new = open_data(picture_folder), {"preset": "nano", "size": 16, "labels": ()}
    made = Unclip.new(part=Parts([tmp_path / "clip"], pictures), **new)
    for ours, theirs in ((made.image, clip.image), (made.sentence, clip.text), (made.heads, clip.heads)):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert made.look(Batch(picture(1), TEXTS[:1], torch.tensor([1])), Noise([0])).shape == (1, 4, 16, 16)
    with pytest.raises(
        UserError, match="no trained part 'image' to stand on: name the folder of a model that has it with --base"
    ):
        Unclip.new(part=Parts([base], pictures), **new)


def test_published_sizes():
    """The decoder's 3.5 B (table 3); for the prior it gives 24 layers of width 2048, 1.2 B in GLIDE's text tower (Nichol et al. 2022)."""
    decoder = cards.GLIDE.presets["paper"]
    assert decoder == pytest.approx(3.5e9, rel=0.03)
    assert cards.UNCLIP.presets["paper"] - decoder == pytest.approx(1.2e9, rel=0.03)
