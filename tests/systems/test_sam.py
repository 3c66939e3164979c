from dataclasses import replace

import pytest
import torch
from PIL import Image

from diorama import cards
from diorama.critics.segmentation import overlaps
from diorama.errors import UserError
from diorama.foundations import find, measures
from diorama.foundations.world import world_of
from diorama.networks.prompts import Prompts
from diorama.networks.two_way import Answer
from diorama.networks.vit import ViTConfig
from diorama.sources import Data, Worlds
from diorama.systems.base import load_system
from diorama.systems.understanding import sam as module
from diorama.systems.understanding.everything import (
    apart,
    asked,
    crest,
    edges,
    everything,
    grid,
    instances,
    named,
    outline,
    pointed,
    proposals,
    sobel,
    stability,
)
from diorama.systems.understanding.sam import Frame, Sam, crops, picked, shrunk
from diorama.train import train
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Batch, Noise
from diorama.worlds.render import boxes

SIZE = 16


def discs(step: int = 0, rank: int = 0, world: int = 1, n: int = 8) -> Batch:
    """Two solid discs on grey, a bright one in the left half and a dark one in the right."""
    u = Noise.at(5, step, n=n).uniform(2, 3)
    y, x = (torch.arange(SIZE) + 0.5)[:, None], torch.arange(SIZE) + 0.5
    middles = torch.stack([4 + 8 * torch.arange(2) + 0 * u[..., 0], 5 + 6 * u[..., 1]], -1)
    away = (x - middles[..., :1, None]).square() + (y - middles[..., 1:, None]).square()
    masks = (away <= (2.5 + u[..., 2, None, None]).square()).float()
    image = 0.8 * (masks[:, :1] - masks[:, 1:])
    return Batch(image.expand(-1, 4, -1, -1).contiguous(), masks=masks)


def small(vector: int = 0) -> Sam:
    torch.manual_seed(0)
    before = module.PRESETS["nano"]
    module.PRESETS["nano"] = ViTConfig(size=SIZE, width=32, depth=1, heads=2), replace(before[1], width=32, hidden=32)
    try:
        system = Sam.build("nano", SIZE, vector)
    finally:
        module.PRESETS["nano"] = before
    system.clicks, system.each = 0, 2
    return system


@pytest.fixture(scope="module")
def trained() -> Sam:
    system = small()
    plan = Plan(steps=120, batch=8, lr=5e-3, warmup=10, decay=0.5, ema=0.9, sample_every=1000, device="cpu", dtype="float32")
    fit(system, discs, plan)
    return system


# --- what it learns ---------------------------------------------------------------------------------


def test_a_click_and_a_box_find_the_disc_they_are_on(trained):
    batch, found = discs(500), []
    for image, masks in zip(batch.image, batch.masks, strict=True):
        truth = masks > 0.5
        boxed = overlaps(instances(trained, image, boxes(truth[:, None])[:, 0]).logits[:, 0] > 0, truth)
        assert boxed.argmax(1).tolist() == [0, 1]
        found.append(pointed(trained, image, truth))
        assert torch.allclose(found[-1][:, 2], boxed.diagonal())
    fits = torch.cat(found)
    assert (fits[:, 1] >= fits[:, 0]).all()  # the best of three and the surest
    assert (fits.mean(0) > 0.7).all()


def test_everything_is_the_two_discs(trained):
    image, truth = discs(501).image[0], discs(501).masks[0]
    found = everything(trained, image, side=8, sure=0.7, stable=0.5)
    assert (overlaps(found.masks, truth).amax(0) > 0.6).all()
    assert found.iou.tolist() == sorted(found.iou.tolist(), reverse=True)
    guesses = proposals(trained, image, most=5, side=4)
    assert len(guesses.iou) <= 5
    rank = guesses.iou + guesses.stability
    assert (rank.diff() <= 0).all()


def test_edges_are_where_the_discs_end(trained):
    image, truth = discs(502).image[0], discs(502).masks[0]
    found = edges(trained, image, side=8)
    near = torch.nn.functional.max_pool2d(outline(truth).any(0)[None].float(), 3, 1, 1)[0] > 0
    assert found.max() == 1
    assert found[near].sum() > 2 * found[~near].sum()


# --- the loss ---------------------------------------------------------------------------------------


def test_the_best_mask_alone_learns():
    """A perfect mask costs nothing however wrong the others are, and no gradient reaches them."""
    truth = discs(n=2).masks[:, 0] > 0.5
    right, wrong = 40 * truth.float() - 20, 20 - 40 * truth.float()
    logits = torch.stack([wrong, wrong, right, wrong], 1).requires_grad_()
    allowed = torch.tensor([[False, True, True, True]] * 2)
    iou = torch.tensor([[0.3, 0.0, 1.0, 0.0]] * 2)
    loss = small().error(Answer(logits, iou), allowed, truth)
    assert torch.allclose(loss, torch.zeros(2), atol=1e-4)
    loss.sum().backward()
    assert not logits.grad[:, [0, 1, 3]].any()
    only_first = small().error(Answer(logits, iou), ~allowed, truth)
    assert (only_first > 10).all()


def test_how_sure_it_is_learns_from_how_well_each_mask_fits():
    truth = discs(n=2).masks[:, 0] > 0.5
    logits = (40 * truth.float() - 20)[:, None].expand(-1, 4, -1, -1)
    allowed = torch.tensor([[False, True, True, True]] * 2)
    loss = small().error(Answer(logits, torch.tensor([[9.0, 1.0, 0.7, 1.6]] * 2)), allowed, truth)
    assert torch.allclose(loss, torch.full((2,), (0.09 + 0.36) / 3), atol=1e-4)


def test_each_mask_there_is_is_picked_as_often():
    masks = torch.zeros(1, 5, 4, 4)
    masks[0, [1, 3, 4], :2] = 1.0
    masks[0, 4, 2] = 1.0
    masks[0, 0, 0, 0] = 1.0  # too small to ask for
    found, there = picked(masks > 0.5, torch.tensor([[0.1, 0.4, 0.9, 0.999]]))
    assert there.all()
    assert torch.equal(found, masks[0, [1, 3, 4, 4]] > 0.5)
    assert not picked(torch.zeros(1, 2, 4, 4) > 0, torch.rand(1, 3))[1].any()


def test_the_loss_of_a_sample_is_its_own_and_reaches_all_weights():
    system, batch = small(), discs(n=3)
    loss = system.loss(batch, Noise([0, 1, 2]))
    assert loss.shape == (3,)
    alone = system.loss(Batch(batch.image[1:2], masks=batch.masks[1:2]), Noise([1]))
    assert torch.allclose(alone, loss[1:2], rtol=1e-4)
    loss.sum().backward()
    assert all(p.grad is not None for p in system.parameters())


def test_pictures_with_alpha_are_enough():
    batch = discs(n=3)
    batch.image[:, 3] = 2 * batch.masks[:, 0] - 1
    system = small()
    assert system.loss(Batch(batch.image), Noise([0, 1, 2])).isfinite().all()
    assert system.look(Batch(batch.image), Noise([0, 1, 2])).shape == (3, 4, SIZE, SIZE)


def test_it_can_learn_to_find_what_looks_like_a_vector():
    system, batch = small(vector=3), discs(n=4)
    system.describe = lambda image: torch.nn.functional.normalize(image.mean((2, 3)) + 0.1, dim=1)
    system.loss(batch, Noise(range(4))).sum().backward()
    assert system.prompts.vector.weight.grad.any()
    found = named(system, batch.image[0], torch.tensor([1.0, 0.0, 0.0]))
    assert found.logits.shape == (1, 3, SIZE, SIZE)
    both = named(system, batch.image[0], torch.tensor([1.0, 0.0, 0.0]), point=torch.tensor([4.0, 8.0]))
    assert both.logits.shape == (1, 1, SIZE, SIZE)


def test_a_crop_of_a_box_is_what_lies_in_it():
    image = torch.randn(1, 3, 16, 16)
    cut = crops(image, torch.tensor([[4, 8, 8, 12]]), torch.ones(1), size=4)
    assert torch.allclose(cut, image[:, :, 8:12, 4:8], atol=1e-5)


# --- frames -----------------------------------------------------------------------------------------


def test_a_picture_twice_as_large_is_the_same_question(trained):
    image = discs(500).image[0, :3]
    large = image.repeat_interleave(2, 1).repeat_interleave(2, 2)
    point = torch.tensor([[[4.5, 8.5]]])
    once, twice = trained.see(image).masks(Prompts.at(point)), trained.see(large).masks(Prompts.at(2 * point))
    assert torch.allclose(once.small, twice.small, atol=1e-4)
    assert twice.logits.shape == (1, 3, 32, 32)


def test_a_narrow_picture_lies_in_the_upper_left_of_its_frame(trained):
    image = discs(500).image[0, :3, :, :9]
    frame = Frame(16, 9, SIZE)
    assert frame.shape == (16, 9)
    assert torch.equal(frame.into(image)[0, :, :, :9], image)
    assert not frame.into(image)[..., 9:].any()
    logits = torch.randn(2, 3, SIZE, SIZE)
    assert torch.equal(frame.out(logits), logits[..., :9])
    padded = torch.nn.functional.pad(image, (0, 7))
    prompts = Prompts.at(torch.tensor([[[4.5, 8.5]]]))
    narrow, wide = trained.see(image).masks(prompts), trained.see(padded).masks(prompts)
    assert torch.equal(narrow.logits, wide.logits[..., :9])


def test_questions_do_not_hear_each_other(trained):
    seen, points = trained.see(discs(500).image[0]), 16 * torch.rand(5, 1, 2)
    together, order = seen.masks(Prompts.at(points)), torch.tensor([3, 0, 4, 1, 2])
    assert torch.allclose(seen.masks(Prompts.at(points[order])).logits, together.logits[order], atol=1e-4)
    assert (together.iou.diff(dim=1) <= 0).all()


def test_a_second_click_gets_one_answer(trained):
    seen, first = trained.see(discs(500).image[0]), Prompts.at(torch.tensor([[[4.5, 8.5]]]))
    more = first.clicked(torch.tensor([[[12.5, 8.5]]]), torch.tensor([[0]]))._replace(mask=seen.masks(first).small[:, 0])
    assert seen.masks(more).logits.shape == (1, 1, SIZE, SIZE)


def test_masks_shrink_by_the_larger_half():
    truth = torch.zeros(1, 4, 4)
    truth[0, :2, :3] = 1
    assert torch.equal(shrunk(truth > 0, torch.zeros(1, 1, 2, 2)), torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]))


# --- the pieces of everything -------------------------------------------------------------------------


def test_of_boxes_that_overlap_the_higher_stays():
    boxes = torch.tensor(
        [[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 5], [20, 0, 30, 10]]
    )  # IoU of the first with the next: 0.9, 0.5
    rank = torch.tensor([0.5, 0.9, 0.1, 0.7])
    assert apart(boxes, rank, 0.7).tolist() == [1, 3, 2]
    assert apart(boxes, rank, 0.5).tolist() == [1, 3]
    assert apart(boxes, rank, 0.95).tolist() == [1, 3, 0, 2]
    assert apart(boxes[:0], rank[:0], 0.7).tolist() == []


def test_a_mask_is_stable_where_its_edge_is_steep():
    logits = torch.tensor([[[3.0, 3.0, -3.0, -3.0]], [[3.0, 0.5, -0.5, -3.0]]])
    assert torch.allclose(stability(logits), torch.tensor([1.0, 1 / 3]))


def test_the_grid_is_of_middles():
    assert grid(2, 8, 4).tolist() == [[1, 2], [3, 2], [1, 6], [3, 6]]


def test_slopes_and_crests_of_a_step():
    step = torch.zeros(6, 7)
    step[:, 3] = 0.5
    step[:, 4:] = 1.0
    slope = sobel(step[None])[0]
    assert torch.allclose(slope[0, 2], torch.tensor([0.0, 0.0, 0.25, 0.5, 0.25, 0.0, 0.0]))
    assert not slope[1].any()
    kept = crest(slope.norm(dim=0), slope) & (slope.norm(dim=0) > 0)
    assert torch.equal(kept, (torch.arange(7) == 3).expand(6, -1))
    turned = crest(slope.norm(dim=0).T, slope.flip(0).mT) & (slope.norm(dim=0).T > 0)
    assert torch.equal(turned, kept.T)


def test_the_border_of_the_picture_is_no_outline():
    mask = torch.zeros(1, 5, 5, dtype=torch.bool)
    mask[:, :, :2] = True
    expected = ((torch.arange(5) == 1) | (torch.arange(5) == 2)).expand(5, -1)
    assert torch.equal(outline(mask)[0], expected)


def test_every_point_of_the_grid_is_asked(trained):
    found = asked(trained.see(discs(500).image[0]), 3)
    assert len(found.iou) <= 27
    assert found.masks.flatten(1).any(1).all()


# --- as a system --------------------------------------------------------------------------------------


def test_the_published_size_is_within_three_percent():
    with torch.device("meta"):
        system = Sam.new(preset="paper", size=1024, labels=(), part=None)
    found = sum(p.numel() for p in system.parameters())
    assert abs(found / cards.SAM.published["parameters"] - 1) < 0.03


def test_it_is_the_same_after_a_journey_over_the_disk(trained, tmp_path):
    trained.save_pretrained(tmp_path / "sam")
    again, image = load_system(tmp_path / "sam"), discs().image[0]
    prompts = Prompts.at(torch.tensor([[[4.0, 8.0]]]))
    assert isinstance(again, Sam)
    assert torch.equal(again.see(image).masks(prompts).logits, trained.see(image).masks(prompts).logits)


def test_every_thing_of_the_world_is_measured(trained, monkeypatch):
    monkeypatch.setattr(measures, "N", 12)
    what = find("world-sam")
    scores = measures.measure(what, trained)
    things = sum(len(world_of(what, measures.SEED).scene(i).things) for i in range(3))
    assert [score.n for score in scores.values()] == [things] * 3
    assert scores["one click, best of three masks"].value >= scores["one click"].value


def test_it_trains_on_the_world_and_on_cut_out_pictures(tmp_path):
    """With the masks that the world knows, and with those that alpha tells."""
    plan = Plan(steps=2, batch=4, sample_every=2, warmup=1, device="cpu", dtype="float32")
    for i in range(24):
        Image.new("RGBA", (20, 20), (255 - 9 * i, 9 * i, 90, 255 * (i % 3 > 0))).save(tmp_path / f"{i}.png")
    for name, data in (("world", Worlds(size=32)), ("folder", Data(path=tmp_path, size=32))):
        history = train("sam", data, tmp_path / "runs" / name, plan, preset="nano", say=lambda line: None)
        assert not history.skipped
        assert (tmp_path / "runs" / name / "samples" / "step-00000002.png").is_file()
        assert isinstance(load_system(tmp_path / "runs" / name / "model"), Sam)


def test_sizes_that_do_not_fit_are_told():
    with pytest.raises(UserError, match="size 30 is not a multiple of 4: use 28"):
        Sam.new(preset="nano", size=30, labels=(), part=None)
    with pytest.raises(UserError, match="preset 'huge'"):
        Sam.new(preset="huge", size=32, labels=(), part=None)
