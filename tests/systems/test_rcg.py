from dataclasses import replace

import pytest
import tiny
import torch

from diorama import cards
from diorama.codecs.conv import ConvCodec, ConvCodecConfig
from diorama.codecs.quantise import VectorQuantiser, VectorQuantiserConfig
from diorama.conditions.picture import Standard, StandardConfig, word
from diorama.data.open import open_data
from diorama.errors import UserError
from diorama.networks.mage import Mage, MageConfig
from diorama.networks.mlp import VectorMLP, VectorMLPConfig
from diorama.networks.vit import ViT, ViTConfig
from diorama.systems.base import load_system
from diorama.systems.images.rcg import PRESETS, Rcg
from diorama.train import Parts
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Batch, Condition, Noise

COLOURS = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [-1, -1, -1]])
PLAN = Plan(steps=2, batch=8, lr=5e-3, warmup=5, ema=0.8, log_every=1, sample_every=1000, device="cpu", dtype="float32")
CODEC = ConvCodecConfig(latent=4, patch=2, widths=(8, 16), decoder_depth=1, variational=False)
MAGE = MageConfig(codes=8, places=(4, 4), told=16, width=16, depth=2, decoder_depth=1, heads=2)


def squares(step: int = 0, rank: int = 0, world: int = 1, n: int = 8) -> Batch:
    """A picture of one colour each."""
    image = torch.cat([COLOURS[torch.arange(n) % 4], torch.ones(n, 1)], 1)[..., None, None].expand(-1, -1, 16, 16)
    return Batch(image)


def frozen():
    torch.manual_seed(0)
    vit = ViT(ViTConfig(size=8, patch=4, width=16, depth=1, heads=2))
    return tiny.randomised(ConvCodec(CODEC)), VectorQuantiser(VectorQuantiserConfig(codes=8, width=4)), vit


def build(random: bool = True) -> Rcg:
    rdm, mage = VectorMLP(VectorMLPConfig(channels=16, width=16, depth=1, embedding=8)), Mage(MAGE)
    if random:
        tiny.randomised(rdm), tiny.randomised(mage)
    return Rcg(*frozen(), Standard(StandardConfig(channels=16)), rdm, mage)


@pytest.fixture(scope="module")
def rcg():
    return build().eval()


# --- the vector -----------------------------------------------------------------------------------


def test_a_vector_is_of_the_whole_picture_and_of_size_one(rcg):
    image = Noise(range(3)).uniform(4, 16, 16) * 2 - 1
    r = rcg.vector(image)
    assert r.shape == (3, 16)
    assert torch.allclose(r.mean(1), torch.zeros(3), atol=1e-5)
    assert torch.allclose(r.square().mean(1), torch.ones(3), atol=1e-3)
    assert torch.allclose(rcg.vector(image[1:2]), r[1:2], atol=1e-5)
    seen = torch.nn.functional.avg_pool2d(image[:, :3], 2)  # the encoder looks at 8 x 8
    assert torch.allclose(rcg.features(image), rcg.encoder(seen).mean(1), atol=1e-5)


def test_features_are_measured_against_all_that_was_seen():
    """Over two equal batches, as over one twice as large; and once training is over nothing moves."""
    standard, x = Standard(StandardConfig(channels=5)), Noise(range(64)).normal(5) * torch.arange(1.0, 6) + 3
    assert torch.allclose(standard.eval()(x), torch.nn.functional.layer_norm(x, (5,)), atol=1e-3)  # nothing seen yet
    standard.train()
    for part in x.split(32):
        standard(part)
    whole = (x - x.mean(0)) / torch.stack([p.var(0) for p in x.split(32)]).mean(0).add(1e-5).sqrt()
    expected = torch.nn.functional.layer_norm(whole, (5,))
    assert torch.allclose(standard.eval()(x), expected, atol=1e-4)
    assert torch.allclose(standard(x[:1]), expected[:1], atol=1e-4)
    assert torch.allclose(standard.train()(x[:1]), expected[:1], atol=1e-4)  # one alone has no spread, and teaches nothing


def test_a_vector_of_zeros_asks_for_nothing():
    z = torch.stack([torch.zeros(16), torch.ones(16)])
    assert word(z).mask.tolist() == [[False], [True]]
    assert torch.equal(Condition(text=word(z)).null().text.mask, torch.zeros(2, 1, dtype=torch.bool))


# --- training -------------------------------------------------------------------------------------


def test_the_loss_is_the_two_losses_and_only_the_two_learn():
    system, batch = build().eval(), squares()
    r, tokens = system.vector(batch.image), system.tokenizer.tokenise(batch.image)
    noise = Noise(range(8))
    expected = system.rdm_loss(r, noise) + system.picture_loss(tokens, r, noise)
    assert torch.allclose(system.loss(batch, Noise(range(8))), expected)
    before = {name: p.clone() for name, p in system.named_parameters()}
    fit(system, squares, PLAN)
    moved = {name.partition(".")[0] for name, p in system.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"rdm", "network"}


def test_the_rdm_says_the_clean_vector(rcg):
    """Its loss is the squared error of what it says itself, not of noise."""
    r, noise = Noise(range(4, 8)).normal(16), Noise(range(4))
    sigma = rcg.rdm_process.law(noise)
    x = r + sigma[:, None] * noise.normal(16)
    said = rcg.rdm(x / (1 + sigma[:, None] ** 2).sqrt(), sigma.log() / 4, Condition())
    assert torch.allclose(rcg.rdm_loss(r, Noise(range(4))), (said - r).square().mean(1), rtol=1e-4)


def test_no_gradient_leads_from_one_loss_to_the_other_network(rcg):
    batch = squares()
    r, tokens = rcg.vector(batch.image), rcg.tokenizer.tokenise(batch.image)
    losses = {"rdm": rcg.rdm_loss(r, Noise(range(8))), "network": rcg.picture_loss(tokens, r, Noise(range(8)))}
    for name, loss in losses.items():
        rcg.zero_grad()
        loss.sum().backward()
        assert {n.partition(".")[0] for n, p in rcg.named_parameters() if p.grad is not None} == {name}


def test_told_a_colour_it_paints_that_colour_and_dreams_of_all():
    """Both networks learn four pictures. By chance one in four would be right."""
    system = build(random=False)
    fit(system, squares, replace(PLAN, steps=120, lr=1e-2))
    image = squares(n=4).image
    right, vectors = system.preview(system.tokenizer.tokenise(image)), system.vector(image)
    painted = system.variations(image.repeat(6, 1, 1, 1), steps=4, noise=Noise(range(24)))
    nearest = torch.cdist(painted.flatten(1), right.flatten(1)).argmin(1)
    assert (nearest == torch.arange(24) % 4).float().mean() > 0.75
    off, kind = torch.cdist(system.imagine(steps=50, noise=Noise(range(40))), vectors).min(1)
    assert off.median() < 0.5 * torch.cdist(vectors[:1], vectors[1:]).min()
    assert len(kind.unique()) == 4


# --- sampling -------------------------------------------------------------------------------------


def test_guidance_rises_as_tokens_are_told(rcg, monkeypatch):
    """Step i of n, from 0: 1 + (guidance - 1)(i + 1) / n, but for the rounding of shares."""
    seen = []

    def pressed(predictor, scale):
        seen.append(scale)
        return predictor

    monkeypatch.setattr("diorama.systems.images.rcg.classifier_free_logits", pressed)
    r = torch.ones(1, 16)
    rcg.paint(r, steps=4, guidance=5.0, noise=Noise([0]))
    assert torch.allclose(seen[0](rcg.process.levels(4)[:-1]), torch.tensor([2.0, 3, 4, 5]), atol=1e-4)
    rcg.paint(r, guidance=1.0, noise=Noise([0]))
    assert seen[1] == 1


def test_pictures_are_the_same_alone_and_in_a_batch(rcg):
    together = rcg.sample(steps=3, noise=Noise([7, 8, 9]))
    assert together.shape == (3, 4, 16, 16)
    for i in range(3):
        assert torch.allclose(rcg.sample(steps=3, noise=Noise([7 + i]))[0], together[i], atol=1e-3)
    assert not torch.allclose(together[0], together[1])


def test_a_picture_depends_on_the_vector(rcg):
    r = Noise([3]).normal(16)
    drawn = [rcg.paint(x, steps=2, guidance=1.0, noise=Noise([0])) for x in (r, -r, torch.zeros_like(r))]
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


# --- the rest -------------------------------------------------------------------------------------


def test_saved_and_loaded_it_is_the_same(tmp_path):
    system = build()
    system.standard(Noise(range(20)).normal(16) + 2)  # what was measured travels too
    system.eval().save_pretrained(tmp_path / "rcg")
    again = load_system(tmp_path / "rcg")
    assert isinstance(again, Rcg)
    assert torch.equal(again.vector(squares().image), system.vector(squares().image))
    assert torch.equal(*(s.sample(steps=2, noise=Noise([0, 1])) for s in (system, again)))


def test_a_new_one_stands_on_a_folder_of_parts(picture_folder, base, tmp_path):
    parts, pictures = frozen(), open_data(picture_folder)
    for name, part in zip(("codec", "quantiser", "encoder"), parts, strict=True):
        part.save_pretrained(tmp_path / name)
    made = Rcg.new(preset="nano", size=16, labels=(), part=Parts([tmp_path], pictures))
    assert made.network.config.places == (4, 4)
    assert made.look(squares(n=2), Noise([0, 1])).shape == (2, 4, 16, 16)
    with pytest.raises(UserError, match="size 18 is not a multiple of 4: use 16"):
        Rcg.new(preset="nano", size=18, labels=(), part=Parts([tmp_path], pictures))
    with pytest.raises(
        UserError, match="no trained part 'quantiser' to stand on: name the folder of a model that has it with --base"
    ):
        Rcg.new(preset="nano", size=16, labels=(), part=Parts([base], pictures))


def test_published_sizes():
    """RDM's 63 M, and MAGE-L's 439 M but for what is frozen of them (Li et al. 2023, table 2), on vectors and tokens like theirs."""
    rdm, mage = PRESETS["paper"]
    with torch.device("meta"):
        parts = VectorMLP(replace(rdm, channels=256)), Mage(replace(mage, codes=1024, places=(16, 16), told=256))
    sizes = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert sizes == pytest.approx([63e6, 439e6 - cards.RCG.published["frozen"]], rel=0.03)
