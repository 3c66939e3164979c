import pytest
import torch

from diorama.errors import UserError
from diorama.networks.classifier import ClassifierConfig, ClassifierNetwork
from diorama.systems.base import load_system
from diorama.systems.understanding.classifier import LEAST, Classifier
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import NO_LABEL, Batch, Noise

LABELS = ("left", "right")
PLAN = Plan(steps=40, batch=16, lr=3e-3, warmup=5, ema=0.8, log_every=1, sample_every=1000, device="cpu", dtype="float32")


def halves(step: int = 0, rank: int = 0, world: int = 1, n: int = 16, axes: int = 2) -> Batch:
    """Pictures (or clips) that are black on the left or on the right, with a little noise; channel 3 means nothing."""
    label = torch.arange(n) % 2
    image = torch.ones(n, 4, *[8] * axes)
    image[label == 0, :3, ..., :4] = -1
    image[label == 1, :3, ..., 4:] = -1
    return Batch(image + 0.1 * Noise.at(5, step, n=n).normal(4, *[8] * axes), label=label)


def classifier(**changes) -> Classifier:
    torch.manual_seed(0)
    config = ClassifierConfig(**{"labels": 2, "widths": (8, 16), "dropout": 0.0, **changes})
    return Classifier(ClassifierNetwork(config), LABELS)


@pytest.fixture(scope="module")
def noisy() -> Classifier:
    system = classifier(embedding=16)
    losses = fit(system, halves, PLAN).losses
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    return system


@pytest.mark.parametrize("axes", [1, 3])
def test_it_learns_along_any_number_of_axes(axes):
    system = classifier(axes=axes)
    fit(system, lambda step, rank, world: halves(step, n=8, axes=axes), PLAN)
    batch = halves(99, axes=axes)
    assert torch.equal(system.label_of(batch.image), batch.label)
    assert system.features(batch.image).shape == (16, 16)


def test_who_knows_nothing_loses_the_logarithm_of_the_labels():
    system = classifier()
    torch.nn.init.zeros_(system.network.head[-1].weight)
    torch.nn.init.zeros_(system.network.head[-1].bias)
    assert torch.allclose(system.loss(halves(), Noise(range(16))), torch.full((16,), 2.0).log())


@pytest.mark.parametrize("embedding", [0, 16])
def test_the_loss_of_a_sample_is_its_own(embedding):
    system, batch = classifier(embedding=embedding).eval(), halves(n=3)
    loss = system.loss(batch, Noise([0, 1, 2]))
    assert loss.shape == (3,)
    alone = system.loss(Batch(batch.image[1:2], label=batch.label[1:2]), Noise([1]))
    assert torch.allclose(alone, loss[1:2], rtol=1e-4)
    system.loss(batch, Noise([0, 1, 2])).sum().backward()
    assert all(p.grad is not None for p in system.parameters())


def test_a_sample_without_a_label_teaches_nothing():
    batch = halves(n=2)
    batch.label[1] = NO_LABEL
    loss = classifier().loss(batch, Noise([0, 1]))
    assert loss[0] > 0
    assert loss[1] == 0


def test_probabilities_sum_to_one(noisy):
    x, sigma = halves(n=4).image, torch.full((4,), 0.5)
    both = [noisy.log_prob(x, sigma, torch.full((4,), k)).exp() for k in (0, 1)]
    assert torch.allclose(both[0] + both[1], torch.ones(4))


def test_the_more_noise_the_less_it_knows(noisy):
    batch, right = halves(50, n=64), []
    for sigma in (LEAST, 8.0, 50.0):
        level = torch.full((64,), sigma)
        x = batch.image + sigma * Noise(range(64)).normal(4, 8, 8)
        right.append(noisy.log_prob(x, level, batch.label).mean().item())
    assert right[0] > right[1] > right[2]
    assert right[2] == pytest.approx(torch.tensor(0.5).log().item(), abs=0.1)  # it says that it does not know


def test_the_gradient_points_to_the_label(noisy):
    """A step along it makes the label likelier: what classifier guidance needs. Channels it does not read have none."""
    batch, sigma = halves(n=4), torch.full((4,), 1.0)
    x = (batch.image + Noise(range(4)).normal(4, 8, 8)).requires_grad_()
    before = noisy.log_prob(x, sigma, batch.label)
    (slope,) = torch.autograd.grad(before.sum(), x)
    step = 0.01 * slope / slope.flatten(1).norm(dim=1)[:, None, None, None]
    assert (noisy.log_prob(x + step, sigma, batch.label) > before).all()
    assert not slope[:, 3].any()


def test_a_picture_is_seen_the_same_alone_and_in_a_batch(noisy):
    image = halves(n=4).image
    assert torch.allclose(noisy.features(image[2:3]), noisy.features(image)[2:3], atol=1e-5)


def test_what_it_takes_for_the_same_stands_together(noisy):
    batch = halves()
    assert torch.equal(noisy.look(batch, Noise(range(16))), torch.cat([batch.image[::2], batch.image[1::2]]))
    clips = halves(n=4, axes=3)
    assert classifier(axes=3).look(clips, Noise(range(4))).shape == (4, 4, 8, 8)


def test_it_is_the_same_after_a_journey_over_the_disk(noisy, tmp_path):
    noisy.save_pretrained(tmp_path / "classifier")
    again, image = load_system(tmp_path / "classifier"), halves().image
    assert isinstance(again, Classifier)
    assert again.labels == LABELS
    assert torch.equal(again.features(image), noisy.features(image))


@pytest.mark.parametrize("preset", ["mini", "noisy", "clip"])
def test_a_new_one_has_a_place_for_every_label(preset):
    system = Classifier.new(preset=preset, size=16, labels=["a", "b", "c"], part=None)
    spatial = [8] * system.network.config.axes
    assert system.logits(torch.zeros(1, 4, *spatial)).shape == (1, 3)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: Classifier.new(preset="mini", size=32, labels=["one"], part=None), "needs two labels or more, not 1"),
        (
            lambda: Classifier.new(preset="huge", size=32, labels=LABELS, part=None),
            "preset 'huge' is not known: use mini, noisy, clip",
        ),
        (lambda: classifier().loss(Batch(halves().image), Noise(range(16))), "this batch has none"),
        (
            lambda: classifier().features(torch.zeros(1, 3, 7, 8)),
            r"shape \(1, 3, 7, 8\): give \(b, 3 or more channels, \*2 sides",
        ),
        (lambda: classifier().features(torch.zeros(1, 1, 8, 8)), "3 or more channels"),
        (lambda: classifier(axes=3).features(torch.zeros(1, 3, 8, 8)), "3 sides"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(call, line):
    with pytest.raises(UserError, match=line) as caught:
        call()
    assert "\n" not in str(caught.value)
