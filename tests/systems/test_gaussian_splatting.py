"""A scene that is fitted gets better; what comes and goes takes along what the optimizer knows."""

from dataclasses import replace

import pytest
import torch

from diorama.critics.fidelity import psnr
from diorama.scenes.cameras import orbit
from diorama.scenes.capture import Capture
from diorama.scenes.cloud import Cloud, CloudConfig
from diorama.scenes.gaussians import Gaussians
from diorama.training.loop import fit
from diorama.types import Noise
from diorama.worlds.scene import Rules, scene
from diorama.worlds.views import shoot

pytest.importorskip("numba")

from diorama.systems.scenes.gaussian_splatting import GaussianSplatting, Growth, Views, plan

CAMERA = orbit(10, 25.0, 1.6, size=32)
RULES = Rules(shapes=("square",), grounds=("clear",), most=2, subjects=0.0)


@pytest.fixture(scope="module")
def split():
    return Capture(shoot([scene(2, 0, RULES)], CAMERA).image[0], CAMERA).split(5)


def new(capture, **growth):
    changed = replace(Growth(first=10, last=40, every=10, reset=0, degree=20, steps=60), **growth)
    return GaussianSplatting.over(capture, first=120, places=200, degree=1, growth=changed, noise=Noise([0]))


def unseen(system, kept_out):
    pictures = torch.stack([system.render(kept_out.camera.rows(i)).image[:3].clamp(-1, 1) for i in range(len(kept_out))])
    return float(psnr(pictures, kept_out.images[:, :3]).mean())


def test_fitting_makes_unseen_views_better_and_gaussians_more(split):
    seen, kept_out = split
    system = new(seen)
    before = unseen(system, kept_out)
    history = fit(system, Views(seen), plan(60))
    assert not history.skipped
    assert unseen(system, kept_out) > before + 2
    assert 120 < len(system.cloud) <= 200


def test_a_run_that_was_stopped_ends_with_the_same_bits(split, tmp_path):
    """In the middle between two changes, and after some: what was counted since is kept too."""
    whole, broken = new(split[0]), new(split[0])
    fit(whole, Views(split[0]), plan(30))

    def stop(step):
        if step.index == 24:
            raise InterruptedError

    short = replace(plan(30), save_minutes=0.0)
    with pytest.raises(InterruptedError):
        fit(broken, Views(split[0]), short, tmp_path, on_step=stop)
    again = new(split[0])
    fit(again, Views(split[0]), short, tmp_path)
    assert len(again.cloud) == len(whole.cloud) > 120
    assert all(torch.equal(part, own) for part, own in zip(again.gaussians(), whole.gaussians(), strict=True))


def by_hand():
    """Four Gaussians: pulled and small, pulled and large, clear, and neither; with room for three more."""
    system = GaussianSplatting(Cloud(CloudConfig(places=7, degree=0)), extent=1.0)
    sizes = torch.tensor([0.001, 0.5, 0.001, 0.001]).log()[:, None].expand(4, 3)
    opacities, turns = torch.tensor([0.5, 0.5, 0.001, 0.5]).logit(), torch.tensor([1.0, 0, 0, 0]).expand(4, 4)
    system.cloud.become(Gaussians(torch.arange(12.0).view(4, 3), sizes, turns, opacities, torch.arange(12.0).view(4, 1, 3)))
    system.pulls[:4], system.looks[:4] = torch.tensor([1.0, 1.0, 1.0, 1e-5]), 1
    optimizer = torch.optim.AdamW(system.cloud.parameters())
    for parameter in system.cloud.parameters():
        parameter.grad = torch.zeros_like(parameter)
        rows = torch.arange(1.0, len(parameter) + 1).reshape(-1, *[1] * (parameter.ndim - 1))
        optimizer.state[parameter] = {"step": torch.tensor(5.0), "exp_avg": rows.expand_as(parameter).clone()}
    return system, optimizer


def test_small_ones_are_cloned_large_ones_split_and_clear_ones_go():
    system, optimizer = by_hand()
    system._grow(optimizer, torch.inf)
    now = system.gaussians().detach()
    assert len(system.cloud) == 5  # two that stay, a clone, two halves
    torch.testing.assert_close(now.means[[0, 1, 2]], torch.tensor([[0.0, 1, 2], [9, 10, 11], [0, 1, 2]]))
    torch.testing.assert_close(now.scales[3:].exp(), torch.full((2, 3), 0.5 / 1.6))
    assert not torch.equal(now.means[3], now.means[4])
    assert float((now.means[3:] - torch.tensor([3.0, 4, 5])).abs().max()) < 4 * 0.5
    known = optimizer.state[system.cloud.opacities]
    assert known["exp_avg"].tolist() == [1, 4, 0, 0, 0, 0, 0]
    assert known["step"] == 5
    assert not system.pulls.any() and not system.looks.any()


def test_where_room_is_short_the_most_pulled_come_first_and_what_is_too_large_goes():
    system, optimizer = by_hand()
    system.pulls[:4] = torch.tensor([1.0, 3.0, 1.0, 2.0])
    system.cloud.config = CloudConfig(places=4, degree=0)
    system._grow(optimizer, torch.inf)  # three stay, so there is room for one more: the large one becomes two
    assert len(system.cloud) == 4
    torch.testing.assert_close(system.gaussians().means[:2], torch.tensor([[0.0, 1, 2], [9, 10, 11]]))
    system, optimizer = by_hand()
    system._grow(optimizer, 0.1)
    assert float(system.gaussians().detach().scales.exp().max()) < 0.1


def test_a_reset_leaves_all_nearly_clear():
    system, optimizer = by_hand()
    system._fade(optimizer)
    assert float(system.gaussians().detach().opacities.sigmoid().max()) <= 0.0100001
    assert not optimizer.state[system.cloud.opacities]["exp_avg"].any()
    assert optimizer.state[system.cloud.means]["exp_avg"].any()


def test_half_a_picture_is_the_unit_of_pulls(split):
    """So the threshold is the same for a picture of any size (the authors' code counts so)."""
    system = new(split[0])
    batch = Views(split[0])(0)
    system.loss(batch, Noise([0])).mean().backward()
    (places,) = system.places
    system._look()
    torch.testing.assert_close(system.pulls[:120], 16 * places.grad.norm(dim=1))
    assert not system.places


def test_saved_and_read(split, tmp_path):
    system = new(split[0])
    system.save_pretrained(tmp_path / "scene")
    again = GaussianSplatting.from_pretrained(tmp_path / "scene")
    assert again.extent == system.extent
    assert torch.equal(again.render(CAMERA.rows(0)).image, system.render(CAMERA.rows(0)).image)


def test_a_short_run_keeps_the_papers_proportions():
    whole, short = Growth.within(30_000), Growth.within(4000)
    assert whole == Growth()
    assert (short.first, short.last, short.every, short.reset, short.degree) == (500, 2000, 100, 1000, 300)
