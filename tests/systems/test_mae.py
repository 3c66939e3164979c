import pytest
import torch

from diorama.errors import UserError
from diorama.networks.layers import unfold
from diorama.networks.vit import Painter, PainterConfig, ViT, ViTConfig, patches
from diorama.systems.base import load_system
from diorama.systems.understanding.mae import MaskedAutoencoder
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Batch, Noise


def stripes(step: int = 0, rank: int = 0, world: int = 1, n: int = 16) -> Batch:
    """Waves from the left or from above: the patches that are seen tell what the others are."""
    across = Noise.at(3, step, n=n).uniform()[:, None, None] < 0.5
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    wave = torch.where(across, x, y).mul(torch.pi / 4).sin()
    return Batch(wave[:, None].expand(-1, 4, -1, -1).contiguous())


def mae(hidden: float = 0.75) -> MaskedAutoencoder:
    torch.manual_seed(0)
    vit = ViTConfig(size=16, patch=4, width=32, depth=2, heads=2)
    painter = PainterConfig(width=24, depth=1, heads=2, given=32, places=16, values=48)
    return MaskedAutoencoder(ViT(vit), Painter(painter), hidden)


@pytest.fixture(scope="module")
def trained() -> MaskedAutoencoder:
    system = mae()
    plan = Plan(steps=40, batch=16, lr=1e-2, warmup=5, ema=0.8, log_every=1, sample_every=1000, device="cpu", dtype="float32")
    losses = fit(system, stripes, plan).losses
    assert losses[-1] < 0.5 * losses[0]
    return system


def test_patches_are_cut_row_by_row():
    image = torch.arange(2 * 3 * 8 * 8.0).reshape(2, 3, 8, 8)
    cut = patches(image, 4)
    assert cut.shape == (2, 4, 48)
    assert torch.equal(cut[:, 1], image[:, :, :4, 4:].flatten(1))
    assert torch.equal(unfold(cut.mT.unflatten(-1, (2, 2)), 4), image)


def test_the_encoder_never_sees_a_hidden_patch():
    """Hidden patches changed, tokens unchanged; a seen one changed, and they are not."""
    vit, image, seen = mae().encoder, stripes(n=1).image[:, :3], torch.tensor([[0, 5, 10, 15]])
    tokens, other = vit(image, seen), image.clone()
    other[:, :, :4, 4:] = 7.0  # patch 1
    assert torch.equal(vit(other, seen), tokens)
    other[:, :, :4, :4] = 7.0  # patch 0
    assert not torch.allclose(vit(other, seen), tokens)


def test_seeing_all_patches_is_seeing_the_picture():
    vit, image, order = mae().encoder, stripes(n=2).image[:, :3], torch.stack([torch.randperm(16) for _ in range(2)])
    tokens = vit(image)
    assert torch.allclose(vit(image, order), tokens.gather(1, order[..., None].expand_as(tokens)), atol=1e-5)


def test_who_paints_nothing_is_wrong_by_the_variance():
    """Targets have unit variance (with the correction of 1 / (n - 1)): painting 0 costs 47 / 48."""
    system = mae()
    torch.nn.init.zeros_(system.decoder.head.weight)
    torch.nn.init.zeros_(system.decoder.head.bias)
    image = Noise(range(3)).normal(4, 16, 16)
    assert torch.allclose(system.loss(Batch(image), Noise(range(3))), torch.full((3,), 47 / 48), atol=1e-4)


def test_only_hidden_patches_count():
    """The decoder paints each patch's own number of mistakes; the loss is the mean over those not given to it."""
    system, given = mae(), []

    def paint(tokens, seen):
        given.append(seen)
        truth = patches(batch.image[:, :3], 4)
        target = (truth - truth.mean(-1, keepdim=True)) / (truth.var(-1, keepdim=True) + 1e-6).sqrt()
        return target + torch.arange(16.0)[:, None].sqrt()

    batch = Batch(Noise(range(3)).normal(4, 16, 16))
    system.decoder.forward = paint
    loss = system.loss(batch, Noise(range(3)))
    assert given[0].shape == (3, 4)
    assert torch.allclose(loss, (120 - given[0].sum(1)) / 12, rtol=1e-4)


def test_the_loss_of_a_sample_is_its_own():
    system, batch = mae(), stripes(n=3)
    loss = system.loss(batch, Noise([0, 1, 2]))
    assert loss.shape == (3,)
    assert torch.allclose(system.loss(Batch(batch.image[1:2]), Noise([1])), loss[1:2], rtol=1e-4)
    assert not torch.allclose(system.loss(batch, Noise([3, 4, 5])), loss)
    loss.sum().backward()
    assert all(p.grad is not None for p in system.parameters())


def test_it_paints_better_than_knowing_nothing(trained):
    batch = stripes(500)
    assert trained.loss(batch, Noise(range(16))).mean() < 0.5 * 47 / 48


def test_a_look_keeps_what_was_seen(trained):
    batch = stripes(500)
    drawn = trained.look(batch, Noise(range(16)))
    assert drawn.shape == (16, 4, 16, 16)
    assert (drawn[:, 3] == 1).all()
    same = (patches(drawn[:, :3], 4) == patches(batch.image[:, :3], 4)).all(-1)
    assert (same.sum(1) == 4).all()


def test_tokens_are_differentiable_and_a_pictures_own(trained):
    image = stripes(n=3).image.requires_grad_()
    tokens = trained.tokens(image)
    assert tokens.shape == (3, 16, 32)
    assert torch.allclose(trained.tokens(image[1:2]), tokens[1:2], atol=1e-5)
    tokens.square().sum().backward()
    assert image.grad[:, :3].any()


def test_it_is_the_same_after_a_journey_over_the_disk(trained, tmp_path):
    trained.save_pretrained(tmp_path / "mae")
    again, image = load_system(tmp_path / "mae"), stripes().image
    assert isinstance(again, MaskedAutoencoder)
    assert again.hidden == 0.75
    assert torch.equal(again.tokens(image), trained.tokens(image))


@pytest.mark.parametrize("preset", ["nano", "mini"])
def test_a_new_one_fits_its_pictures(preset):
    system = MaskedAutoencoder.new(preset=preset, size=32, labels=(), part=None)
    assert system.loss(Batch(torch.zeros(2, 4, 32, 32)), Noise([0, 1])).shape == (2,)
    assert system.tokens(torch.zeros(1, 3, 32, 32)).shape == (1, 64, system.encoder.config.width)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: MaskedAutoencoder.new(preset="mini", size=34, labels=(), part=None), "size 34 is not a multiple of 4: use 32"),
        (
            lambda: MaskedAutoencoder.new(preset="huge", size=32, labels=(), part=None),
            "preset 'huge' is not known: use nano, mini",
        ),
        (lambda: mae().tokens(torch.zeros(1, 3, 32, 16)), "pictures of 16 x 32: this encoder looks at 16 x 16"),
        (lambda: mae(1.5), "hidden 1.5 is not a share: use more than 0 and less than 1"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(call, line):
    with pytest.raises(UserError, match=line):
        call()
