import torch

from diorama.data.holes import WHOLE, boxes
from diorama.types import Noise


def test_each_hole_is_one_box_and_some_are_everything():
    masks = boxes(32, Noise(range(400)))
    assert masks.shape == (400, 1, 32, 32)
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    rows, columns = masks[:, 0].amax(2), masks[:, 0].amax(1)
    assert torch.equal(masks[:, 0], rows[:, :, None] * columns[:, None])  # a box is its rows times its columns
    for line in (rows, columns):
        assert (line.diff(dim=1).abs().sum(1) <= 2).all()  # one piece
    whole = masks.flatten(1).all(1)
    assert abs(whole.float().mean().item() - WHOLE) < 0.05
    sides = rows[~whole].sum(1)
    assert sides.min() >= 7
    assert sides.max() <= 25


def test_a_hole_is_the_same_alone_and_in_a_batch():
    assert torch.equal(boxes(16, Noise([3, 4]))[1:], boxes(16, Noise([4])))
