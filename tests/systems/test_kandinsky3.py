import json
from dataclasses import replace

import pytest
import tiny
import torch

from diorama.apps.cli import main
from diorama.codecs.conv import ConvCodec, ConvCodecConfig
from diorama.codecs.quantise import VectorQuantiser, VectorQuantiserConfig
from diorama.networks.unet import UNet
from diorama.pipeline import load
from diorama.processes.levels import cosine
from diorama.processes.scalings import Epsilon
from diorama.sources import Data
from diorama.systems.base import load_system
from diorama.systems.images.kandinsky3 import Kandinsky3
from diorama.systems.images.vq import VectorQuantised
from diorama.train import train
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Batch, Noise

TEXTS = ["a red square", "a blue round thing", ""]
PLAN = Plan(steps=2, batch=4, warmup=1, log_every=1, sample_every=2, device="cpu", dtype="float32")
MOVQ = ConvCodecConfig(latent=4, patch=2, widths=(8, 16), decoder_depth=1, variational=False, attention=True, spatial=True)
HOLE = torch.zeros(3, 1, 16, 16)
HOLE[:, :, 3:9, 4:12] = 1


def movq():
    return tiny.randomised(ConvCodec(MOVQ))


@pytest.fixture
def kandinsky():
    shape = replace(tiny.UNET, labels=0, levels=1.0, bottleneck=True, reads=24)
    return Kandinsky3(movq(), tiny.sentence_encoder(), tiny.randomised(UNet(shape)), (), 16).eval()


def picture(n=3):
    return Noise(range(n)).uniform(4, 16, 16) * 2 - 1


def batch(step=0, rank=0, world=1):
    return Batch(picture(), TEXTS)


# --- training -------------------------------------------------------------------------------------


def test_only_the_network_learns_and_all_of_it(kandinsky):
    assert {name.partition(".")[0] for name, p in kandinsky.named_parameters() if p.requires_grad} == {"network"}
    kandinsky.train().loss(batch(), Noise(range(3))).mean().backward()
    assert [name for name, p in kandinsky.network.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert kandinsky.cacheable


def test_a_loss_of_one_sample_does_not_know_its_batch(kandinsky):
    together, whole = kandinsky.loss(batch(), Noise(range(3))), batch()
    alone = [kandinsky.loss(Batch(whole.image[[i]], TEXTS[i : i + 1]), Noise([i])) for i in range(3)]
    assert torch.allclose(together, torch.cat(alone), rtol=1e-3)


# --- sampling -------------------------------------------------------------------------------------


def test_a_picture_is_the_same_alone_and_in_a_batch(kandinsky):
    together = kandinsky.sample(TEXTS, steps=3, noise=Noise([7, 8, 9]))
    assert together.shape == (3, 4, 16, 16)
    for i in range(3):
        alone = kandinsky.sample(TEXTS[i : i + 1], steps=3, noise=Noise([7 + i]))
        assert torch.allclose(alone[0], together[i], atol=1 / 255)


def test_words_reach_the_picture_without_a_pooled_vector(kandinsky):
    asked = kandinsky.condition(TEXTS[:2])
    silent = replace(asked, text=asked.text._replace(pooled=torch.zeros_like(asked.text.pooled)))
    drawn = [kandinsky.paint(kandinsky.guided(1.0), c, steps=3, noise=Noise([1, 1])) for c in (asked, silent)]
    assert torch.equal(*drawn)
    assert not torch.allclose(*drawn[0], atol=1e-3)


def test_it_walks_down_the_levels_of_its_table(kandinsky):
    seen = []
    kandinsky.sample(TEXTS[:1], steps=4, noise=Noise([0]), on_step=seen.append)
    assert [step.sigma for step in seen] == pytest.approx(Epsilon(cosine()).sigmas[[999, 666, 333, 0]].tolist())


def test_a_threshold_keeps_latents_within_reach(kandinsky):
    """Of what random weights expect nearly all lies beyond."""

    def largest(system):
        seen = []
        system.sample(TEXTS, steps=3, noise=Noise([7, 8, 9]), on_step=lambda step: seen.append(step.x0.abs().max().item()))
        return max(seen)

    assert largest(kandinsky) <= Kandinsky3.farthest + 1e-4
    kandinsky.threshold = 0.0
    assert largest(kandinsky) > 2 * Kandinsky3.farthest


def test_saved_and_loaded_it_is_the_same(kandinsky, tmp_path):
    kandinsky.threshold = 0.95
    kandinsky.save_pretrained(tmp_path / "model")
    again = load_system(tmp_path / "model")
    assert isinstance(again, Kandinsky3) and again.threshold == 0.95
    assert torch.equal(*(system.sample(TEXTS, steps=2, noise=Noise([0, 1, 2])) for system in (kandinsky, again)))


# --- holes ----------------------------------------------------------------------------------------


def test_an_inpainter_has_nine_channels_and_begins_as_the_model_it_was(kandinsky):
    tuned = kandinsky.inpainter()
    assert tuned.network.inlet.in_channels == 9
    drawn = [system.sample(TEXTS, steps=3, noise=Noise([0, 1, 2])) for system in (kandinsky, tuned)]
    assert torch.equal(*drawn)


def test_a_latent_is_new_where_any_of_its_pixels_is(kandinsky):
    hole = kandinsky.places(HOLE)  # four pixels to a place: from 3 on is within the first
    assert hole.shape == (3, 1, 4, 4)
    assert hole[0, 0].tolist() == [[0, 1, 1, 0]] * 3 + [[0] * 4]


def test_the_latents_of_what_is_known_stay(kandinsky):
    for model in (kandinsky, kandinsky.inpainter()):
        model.preview = lambda x0: x0
        filled = model.inpaint(picture(), HOLE, TEXTS, steps=3, noise=Noise([0, 1, 2]))
        z, known = model.codec.encode(picture()), (model.places(HOLE) == 0).expand(-1, 4, -1, -1)
        assert torch.allclose(filled[known], z[known], atol=1e-4)
        assert not torch.allclose(filled[~known], z[~known], atol=1e-2)


def test_tuning_shows_holes_and_the_network_takes_them_in(kandinsky):
    tuned = kandinsky.inpainter()
    seen = tuned.shown(tuned.condition(TEXTS), tuned.codec.encode(picture()), Noise([0, 1, 2])).image
    assert torch.equal(seen[:, :4], tuned.codec.encode(picture()) * (1 - seen[:, 4:]))
    fit(tuned, batch, PLAN)
    assert tuned.network.inlet.weight[:, 4:].abs().sum((0, 2, 3)).min() > 0


# --- what it stands on ----------------------------------------------------------------------------


@torch.no_grad()
def test_a_finished_movq_has_latents_of_unit_variance_and_says_the_same():
    """And where it is finished twice, as after going on with its training."""
    system = VectorQuantised(movq(), VectorQuantiser(VectorQuantiserConfig(codes=16, width=4, unit=False)))
    image = Noise(range(32)).uniform(4, 16, 16) * 2 - 1
    tokens, z = system.tokenise(image), system.codec.encode(image)
    system.quantiser.codebook.copy_(z.mean((0, 2, 3)) + z.std() * system.quantiser.codebook)
    tokens = system.tokenise(image)
    pictures = system.detokenise(tokens)
    assert len(tokens.unique()) > 4
    for _ in range(2):
        system.finish(Batch(image))
        z = system.codec.encode(image)
        assert torch.allclose(z.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
        assert z.var() == pytest.approx(1.0, rel=1e-2)
        assert (system.tokenise(image) == tokens).float().mean() > 0.99  # but for ties
        assert torch.allclose(system.detokenise(tokens), pictures, atol=1e-3)


def test_it_trains_on_a_movq_and_then_paints(picture_folder, tmp_path, capsys):
    codec = VectorQuantised(movq(), VectorQuantiser(VectorQuantiserConfig(codes=16, width=4, unit=False)))
    codec.save_pretrained(tmp_path / "movq")
    data = Data(path=picture_folder, size=16)
    losses = train(
        "kandinsky3", data, tmp_path / "run", PLAN, preset="nano", base=tmp_path / "movq", say=lambda line: None
    ).losses
    assert len(losses) == PLAN.steps
    model = load(tmp_path / "run")
    assert len(model.sample(["a red square", ""], seed=3, steps=2)) == 2
    assert main(["show", str(tmp_path / "run"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["slug"] == "kandinsky3"
    assert set(shown["models"][0]["parameters"]) == {"codec", "text", "network"}
