"""The tokenizer and the generator that stands on it."""

from dataclasses import replace

import pytest
import tiny
import torch

from diorama.codecs.conv import ConvCodec, ConvCodecConfig
from diorama.codecs.quantise import VectorQuantiser, VectorQuantiserConfig
from diorama.conditions.caption import CaptionConfig, CaptionEncoder
from diorama.errors import UserError
from diorama.networks.tokens import TokenTransformer, TokenTransformerConfig
from diorama.systems.base import load_system
from diorama.systems.images import masked_tokens
from diorama.systems.images.autoencoder import Autoencoder
from diorama.systems.images.masked_tokens import MaskedTokens
from diorama.systems.images.vq import VectorQuantised
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import MASK, Batch, Noise

COLOURS = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [-1, -1, -1]])
TEXTS = [f"a {colour} square" for colour in ("red", "green", "blue", "white")]
PLAN = Plan(batch=8, warmup=5, ema=0.8, log_every=1, sample_every=1000, device="cpu", dtype="float32")


def squares(step: int = 0, rank: int = 0, world: int = 1, n: int = 8) -> Batch:
    """A picture of one colour each, with a caption and a label that say which."""
    colour = torch.arange(n) % 4
    image = torch.cat([COLOURS[colour], torch.ones(n, 1)], 1)[..., None, None].expand(-1, -1, 16, 16)
    return Batch(image, [TEXTS[c] for c in colour], colour % 2)


def codec() -> ConvCodec:
    return ConvCodec(ConvCodecConfig(latent=4, patch=2, widths=(8, 16), decoder_depth=1, variational=False))


def tokenizer() -> VectorQuantised:
    torch.manual_seed(0)
    return VectorQuantised(codec(), VectorQuantiser(VectorQuantiserConfig(codes=8, width=4, decay=0.8)))


def generator(labels: tuple[str, ...] = ("warm", "cold")) -> MaskedTokens:
    """Random weights everywhere, so that every wish shows."""
    torch.manual_seed(0)
    config = TokenTransformerConfig(codes=8, places=(4, 4), width=16, depth=2, heads=2, text_width=16, labels=len(labels))
    network = tiny.randomised(TokenTransformer(config))
    quantiser = VectorQuantiser(VectorQuantiserConfig(codes=8, width=4))
    return MaskedTokens(tiny.randomised(codec()), quantiser, tiny.sentence_encoder(), network, labels)


# --- codecs of every stride -----------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["f2", "f4", "f8", "f16"])
def test_an_autoencoder_of_every_stride(preset):
    stride, image = int(preset[1:]), Noise([0]).normal(4, 32, 32).clamp(-1, 1)
    system = Autoencoder.new(preset=preset, size=32, labels=(), part=None)
    z = system.codec.encode(image)
    assert z.shape == (1, 2 * stride, 32 // stride, 32 // stride)
    assert system.reconstruct(image).shape == image.shape
    system.loss(Batch(image), Noise([0])).sum().backward()
    assert all(p.grad is not None for p in system.parameters())
    with pytest.raises(UserError, match=f"size 33 is not a multiple of {stride}: use 32"):
        Autoencoder.new(preset=preset, size=33, labels=(), part=None)


def test_a_codec_without_a_variance_is_sure_of_its_latents():
    model, x = codec(), Noise([0]).normal(4, 16, 16)
    mean, log_variance = model.posterior(x)
    assert torch.equal(model.encode(x), mean)
    assert (log_variance == -20).all()


# --- the tokenizer --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> VectorQuantised:
    system = tokenizer()
    losses = fit(system, squares, replace(PLAN, steps=40, lr=1e-2)).losses
    assert losses[-1] < 0.5 * losses[0]
    return system


def test_four_colours_are_written_in_four_ways(trained):
    indices = trained.tokenise(squares(n=4).image)
    assert indices.shape == (4, 4, 4)
    assert len(indices.unique(dim=0)) == 4
    assert torch.equal(trained.look(squares(n=4), Noise(range(4))), trained.detokenise(indices))


def test_a_picture_is_written_the_same_alone_and_in_a_batch(trained):
    image = squares().image
    assert torch.equal(trained.tokenise(image)[2:3], trained.tokenise(image[2:3]))


def test_the_tokenizers_loss_is_one_number_a_sample_and_changes_nothing_where_it_is_judged(trained):
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    loss = trained.loss(squares(), Noise(range(8)))
    assert loss.shape == (8,)
    assert torch.allclose(trained.loss(Batch(squares().image[3:4]), Noise([3])), loss[3:4], rtol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


def test_the_encoder_learns_through_the_codes():
    system = tokenizer().train()
    system.loss(squares(), Noise(range(8))).sum().backward()
    assert all(p.grad is not None for p in system.parameters())
    assert any(p.grad.any() for p in system.codec.encoder.parameters())


def test_a_saved_tokenizer_writes_the_same(trained, tmp_path):
    trained.save_pretrained(tmp_path / "vq")
    again = load_system(tmp_path / "vq")
    assert isinstance(again, VectorQuantised)
    indices = trained.tokenise(squares().image)
    assert torch.equal(again.tokenise(squares().image), indices)
    assert torch.equal(again.detokenise(indices), trained.detokenise(indices))


def test_the_mini_tokenizer_writes_32_pixels_as_64_tokens():
    system = VectorQuantised.new(preset="mini", size=32, labels=(), part=None)
    indices = system.tokenise(Noise([0]).normal(4, 32, 32))
    assert indices.shape == (1, 8, 8)
    assert system.detokenise(indices).shape == (1, 4, 32, 32)
    assert system.quantiser.config.codes == 256
    with pytest.raises(UserError, match="preset 'huge' is not known: use mini"):
        VectorQuantised.new(preset="huge", size=32, labels=(), part=None)


# --- the generator --------------------------------------------------------------------------------


def test_the_loss_is_one_number_a_sample():
    system, batch = generator().eval(), squares(n=3)
    loss = system.loss(batch, Noise([0, 1, 2]))
    assert loss.shape == (3,)
    for i in range(3):
        alone = Batch(batch.image[i : i + 1], batch.text[i : i + 1], batch.label[i : i + 1])
        assert torch.allclose(system.loss(alone, Noise([i])), loss[i : i + 1], rtol=1e-3)


def test_what_was_encoded_before_gives_the_same_loss():
    system, batch = generator().eval(), squares()
    encoded = system.encode(batch)
    cached = Batch(batch.image.new_zeros(0), (), encoded.label, encoded.latent.half(), encoded.embedding)
    assert system.cacheable
    assert torch.equal(system.loss(cached, Noise(range(8))), system.loss(batch, Noise(range(8))))


def test_only_the_network_is_trained_and_all_of_it():
    system = generator()
    system.loss(squares(), Noise(range(8))).sum().backward()
    trained = {name.partition(".")[0] for name, p in system.named_parameters() if p.requires_grad}
    assert trained == {"network"}
    assert all(p.grad is not None for p in system.network.parameters())


def test_it_writes_what_it_was_told(trained):
    """Four sentences, four pictures: each is nearest to its own, one time in 256 by chance. The words are learned with the rest."""
    torch.manual_seed(0)
    config = TokenTransformerConfig(codes=8, places=(4, 4), width=32, depth=2, heads=2, text_width=16)
    text = CaptionEncoder.of(TEXTS, CaptionConfig(words=300, width=16, depth=1, heads=2))
    system, shown = MaskedTokens(trained.codec, trained.quantiser, text, TokenTransformer(config)), []
    assert not system.cacheable
    fit(system, squares, replace(PLAN, steps=160, lr=5e-3))
    system.sample(TEXTS, steps=4, guidance=2.0, noise=Noise(range(4)), on_step=shown.append)
    truth = trained.tokenise(squares(n=4).image)
    right = (shown[-1].x0[:, None] == truth).float().mean((2, 3))
    assert right.argmax(1).tolist() == [0, 1, 2, 3]


def test_a_picture_is_the_same_alone_and_in_a_batch():
    system = generator().eval()
    together = system.sample(TEXTS[:3], ["warm", None, "cold"], steps=3, noise=Noise([7, 8, 9]))
    for i, label in enumerate(["warm", None, "cold"]):
        alone = system.sample(TEXTS[i : i + 1], [label], steps=3, noise=Noise([7 + i]))
        assert torch.allclose(alone[0], together[i], atol=1 / 255)


@pytest.mark.parametrize(
    "change",
    [
        {"guidance": 1.0},
        {"negative": ["a white thing"] * 2},
        {"labels": ["warm", "cold"]},
        {"steps": 1},
        {"prompts": [""] * 2},
        {"guidance": lambda share: 1 + 6 * share},
    ],
)
def test_every_wish_changes_the_picture(change):
    system = generator().eval()
    wish = {"prompts": TEXTS[:2], "steps": 3, "noise": Noise([0, 1])}
    assert not torch.equal(system.sample(**wish), system.sample(**{**wish, "noise": Noise([0, 1]), **change}))


def test_known_tokens_are_kept():
    system, shown = generator().eval(), []
    start = torch.full((2, 4, 4), MASK)
    start[:, :2] = torch.arange(8).reshape(2, 4)
    system.sample(TEXTS[:2], start=start, steps=3, noise=Noise([0, 1]), on_step=lambda step: shown.append(step.x0))
    assert (torch.stack(shown)[:, :, :2] == start[:, :2]).all()
    assert system.preview(shown[0]).shape == (2, 4, 16, 16)


def test_without_words_there_is_still_the_label():
    system = generator().eval()
    batch = Batch(squares().image, (), squares().label)
    assert system.loss(batch, Noise(range(8))).shape == (8,)
    assert system.look(batch, Noise(range(8))).shape == (8, 4, 16, 16)


def test_saved_and_loaded_it_draws_the_same(tmp_path):
    system = generator().eval()
    system.save_pretrained(tmp_path / "masked")
    again = load_system(tmp_path / "masked")
    assert isinstance(again, MaskedTokens)
    assert again.labels == ("warm", "cold")
    drawn = [one.sample(TEXTS, ["warm"] * 4, steps=2, noise=Noise(range(4))) for one in (system, again)]
    assert torch.equal(*drawn)


def test_a_new_one_stands_on_a_tokenizer_and_its_words(trained):
    parts = {"codec": trained.codec, "quantiser": trained.quantiser, "text": tiny.sentence_encoder()}
    system = MaskedTokens.new(preset="nano", size=16, labels=["warm", "cold"], part=lambda name, kind: parts[name])
    config = system.network.config
    assert (config.codes, config.places, config.text_width, config.labels) == (8, (4, 4), 16, 2)
    assert config.depth == masked_tokens.PRESETS["nano"].depth
    with pytest.raises(UserError, match="size 18 is not a multiple of 4: use 16"):
        MaskedTokens.new(preset="nano", size=18, labels=(), part=lambda name, kind: parts[name])
    with pytest.raises(UserError, match="preset 'huge' is not known: use nano, mini"):
        MaskedTokens.new(preset="huge", size=16, labels=(), part=lambda name, kind: parts[name])


@pytest.mark.parametrize(
    ("labels", "line"), [(("warm",), "label 'hot' is not known: use warm"), ((), "use none, it was trained without")]
)
def test_a_label_that_is_not_known_is_told_in_one_line(labels, line):
    with pytest.raises(UserError, match=line):
        generator(labels).sample(TEXTS[:1], ["hot"], noise=Noise([0]))
