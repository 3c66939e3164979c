import json
from dataclasses import replace

import pytest
import tiny
import torch

from diorama import cards
from diorama.apps.cli import main
from diorama.codecs.conv import ConvCodec, ConvCodecConfig
from diorama.conditions.caption import CaptionConfig, CaptionEncoder
from diorama.networks.unet import UNet, UNetConfig
from diorama.pipeline import load
from diorama.processes.levels import scaled_linear
from diorama.processes.scalings import Epsilon
from diorama.sources import Data, Worlds
from diorama.systems.base import load_system
from diorama.systems.images.ldm import PRESETS, LatentDiffusion
from diorama.train import train
from diorama.training.plan import Plan
from diorama.types import Batch, Noise

TEXTS = ["a red square", "a blue round thing", ""]
WORDS = CaptionConfig(words=300, width=16, depth=1, heads=2, max_tokens=8)
PLAN = Plan(steps=2, batch=4, warmup=1, log_every=1, sample_every=2, device="cpu", dtype="float32")


def built():
    text = tiny.randomised(CaptionEncoder.of([*TEXTS, "a green thing"] * 4, WORDS))
    shape = UNetConfig(
        channels=4, widths=(16, 32), depth=1, attention=(False, True), heads=2, text_width=16, labels=2, embedding=24, levels=1.0
    )
    return LatentDiffusion(tiny.codec(), text, tiny.randomised(UNet(replace(shape, transformer=True))), tiny.STYLES, 16)


@pytest.fixture
def ldm():
    return built().eval()


def batch(n=3):
    return Batch(Noise(range(n)).uniform(4, 16, 16) * 2 - 1, TEXTS[:n], torch.tensor([0, 1, -1])[:n])


# --- training -------------------------------------------------------------------------------------


def test_a_loss_of_one_sample_does_not_know_its_batch(ldm):
    together, whole = ldm.loss(batch(), Noise(range(3))), batch()
    alone = [ldm.loss(Batch(whole.image[[i]], TEXTS[i : i + 1], whole.label[[i]]), Noise([i])) for i in range(3)]
    assert together.shape == (3,)
    assert torch.allclose(together, torch.cat(alone), rtol=1e-3)


def test_the_words_learn_with_the_network_and_the_codec_does_not(ldm):
    ldm.train().loss(batch(), Noise(range(3))).mean().backward()
    silent = {name for name, p in ldm.named_parameters() if p.grad is None or not p.grad.any()}
    assert silent == {f"codec.{name}" for name, _ in ldm.codec.named_parameters()}
    assert not ldm.cacheable  # what the words say changes from step to step


def test_one_step_teaches_it_something(ldm):
    def loss():
        return ldm.loss(batch(), Noise(range(3))).mean()

    before = loss()
    before.backward()
    with torch.no_grad():
        for p in ldm.parameters():
            p -= 1e-4 * (0 if p.grad is None else p.grad)
        assert loss() < before


# --- sampling -------------------------------------------------------------------------------------


def test_a_picture_is_the_same_alone_and_in_a_batch(ldm):
    styles = ["flat", None, "solid"]
    together = ldm.sample(TEXTS, styles, steps=3, noise=Noise([7, 8, 9]))
    assert together.shape == (3, 4, 16, 16)
    for i in range(3):
        alone = ldm.sample(TEXTS[i : i + 1], styles[i : i + 1], steps=3, noise=Noise([7 + i]))
        assert torch.allclose(alone[0], together[i], atol=1 / 255)


def test_words_reach_the_picture_through_attention_alone(ldm):
    """The pooled vector taken away, the tokens still say what is asked."""
    torch.nn.init.zeros_(ldm.network.condition.text.weight)
    drawn = [ldm.sample([text], steps=3, noise=Noise([1])) for text in TEXTS[:2]]
    assert not torch.allclose(*drawn, atol=1e-3)


def test_it_walks_down_the_levels_of_its_table(ldm):
    seen = []
    ldm.sample(TEXTS[:1], steps=4, noise=Noise([0]), on_step=seen.append)
    sigmas = Epsilon(scaled_linear()).sigmas
    assert [step.sigma for step in seen] == pytest.approx(sigmas[[999, 666, 333, 0]].tolist())


def test_saved_and_loaded_it_is_the_same(ldm, tmp_path):
    ldm.save_pretrained(tmp_path / "model")
    again = load_system(tmp_path / "model")
    assert isinstance(again, LatentDiffusion) and isinstance(again.text, CaptionEncoder)
    assert torch.equal(*(system.sample(TEXTS, steps=2, noise=Noise([0, 1, 2])) for system in (ldm, again)))


# --- from the command line ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_codec(tmp_path_factory):
    """Parts to stand on: a codec of the usual depth, untrained and narrow."""
    folder = tmp_path_factory.mktemp("base")
    ConvCodec(ConvCodecConfig(latent=4, patch=4, widths=(8, 16), decoder_depth=1)).save_pretrained(folder / "codec")
    return folder


@pytest.mark.parametrize("kind", ["folder", "world"])
def test_it_trains_on_pictures_and_on_the_world_and_then_paints(kind, picture_folder, small_codec, tmp_path, capsys):
    data = Data(path=picture_folder, size=32) if kind == "folder" else Worlds(size=32)
    losses = train("ldm", data, tmp_path / "run", PLAN, preset="nano", base=small_codec, say=lambda line: None).losses
    assert len(losses) == PLAN.steps
    model = load(tmp_path / "run")
    pictures = model.sample(["a red square", ""], seed=3, steps=2)
    assert [picture.size for picture in pictures] == [(32, 32)] * 2
    assert main(["show", str(tmp_path / "run"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["slug"] == "ldm"
    assert set(shown["models"][0]["parameters"]) == {"codec", "text", "network"}


def test_the_published_size():
    """1.45 B (Rombach et al. 2022, table 15) of U-Net and text tower, the output layer of the latter left out."""
    shape, words = PRESETS["paper"]
    with torch.device("meta"):
        parts = UNet(replace(shape, text_width=words.width)), CaptionEncoder.of(TEXTS, words)
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert sum(counts) == pytest.approx(cards.LDM.published["parameters"], rel=0.03)
    assert counts[0] == pytest.approx(0.87e9, rel=0.03)  # as the released text-to-image weights have it
