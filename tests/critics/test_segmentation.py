import pytest
import torch

from diorama.critics.segmentation import VOID, boundary_f, class_overlaps, iou, over_classes, overlaps, panoptic_overlaps
from diorama.errors import UserError


def square(left: int = 4, top: int = 4, side: int = 8, size: int = 24) -> torch.Tensor:
    mask = torch.zeros(1, size, size, dtype=torch.bool)
    mask[:, top : top + side, left : left + side] = True
    return mask


def maps(n: int = 6, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    truth = torch.randint(classes - 1, (n, 8, 8), generator=g)  # the last class occurs nowhere
    return torch.where(torch.rand(n, 8, 8, generator=g) < 0.7, truth, torch.randint(classes - 1, (n, 8, 8), generator=g)), truth


def test_shifted_squares_have_their_known_overlap():
    assert iou(square(), square(left=6)).item() == pytest.approx(6 / 10)
    assert overlaps(torch.cat([square(), square(16)]), square(left=6)).tolist() == [[pytest.approx(0.6)], [0]]
    empty = torch.zeros(1, 24, 24)
    assert (iou(empty, empty).item(), iou(empty, square()).item()) == (1, 0)


@pytest.mark.parametrize(("shift", "tolerance", "value"), [(0, 0, 1), (3, 0, 10 / 28), (3, 3, 1), (3, 2, 18 / 28), (40, 5, 0)])
def test_the_border_of_a_shifted_square(shift, tolerance, value):
    """Of 28 border pixels 2 (8 - 3) lie on the other's; within 2 pixels 2 x 7 of the lines and 4 of the 6 between their ends."""
    found = boundary_f(square(size=64), square(left=4 + shift, size=64), tolerance=tolerance).item()
    assert found == pytest.approx(value, abs=1e-6)


def test_borders_that_are_not_there():
    empty = torch.zeros(1, 24, 24)
    assert (boundary_f(empty, empty).item(), boundary_f(empty, square()).item()) == (1, 0)
    whole = torch.ones(1, 24, 24)
    assert boundary_f(whole, whole).item() == 1  # the picture's edge is a border


def test_mean_iou_agrees_with_torchmetrics_and_its_error_with_repetitions():
    found, truth = maps()
    score = over_classes(class_overlaps(found, truth, 4))
    reference = pytest.importorskip("torchmetrics.functional.classification")
    theirs = reference.multiclass_jaccard_index(found, truth, 4, average="macro")
    assert score.value == pytest.approx(theirs.item())
    assert 0 < score.stderr < 0.1


def test_void_counts_nowhere():
    found, truth = maps()
    veiled = truth.clone()
    veiled[:, :4] = VOID
    assert torch.equal(class_overlaps(found, veiled, 4), class_overlaps(found[:, 4:], truth[:, 4:], 4))


def test_panoptic_quality_of_a_found_a_missed_and_an_invented_thing():
    truth = torch.zeros(1, 2, 24, 24, dtype=torch.int64)
    found = truth.clone()
    truth[0, :, square()[0]] = torch.tensor([1, 1])[:, None]
    truth[0, :, square(14, 14)[0]] = torch.tensor([1, 2])[:, None]
    found[0, :, square(left=5)[0]] = torch.tensor([1, 7])[:, None]  # IoU 7 / 9 with the first; the second is missed
    found[0, :, square(2, 16, 4)[0]] = torch.tensor([1, 9])[:, None]  # nothing is there
    top, bottom = panoptic_overlaps(found, truth, 2)[0, 1].tolist()
    assert (top, bottom) == (pytest.approx(7 / 9), 1 + 0.5 + 0.5)


def test_panoptic_quality_agrees_with_torchmetrics():
    reference = pytest.importorskip("torchmetrics.functional.detection")
    g = torch.Generator().manual_seed(0)
    truth = torch.randint(3, (3, 2, 4, 4), generator=g).repeat_interleave(6, 2).repeat_interleave(6, 3)
    truth[:, 1] *= truth[:, 0] > 0  # class 0 is stuff
    found = truth.roll(1, 3)
    found[1, :, :6] = truth[0, :, :6]
    ours = over_classes(panoptic_overlaps(found, truth, 3), "PQ")
    theirs = reference.panoptic_quality(found.movedim(1, -1), truth.movedim(1, -1), things={1, 2}, stuffs={0})
    assert ours.value == pytest.approx(theirs.item())
    assert ours.unit == "PQ"


def test_what_is_mostly_void_is_not_held_against_it():
    truth = torch.full((1, 2, 8, 8), VOID)
    truth[:, :, :4] = 0
    found = torch.zeros(1, 2, 8, 8, dtype=torch.int64)
    found[:, 0, 3:] = 1  # 8 of its 40 pixels are known not to be of class 1
    assert panoptic_overlaps(found, truth, 2)[0].tolist() == [[pytest.approx(24 / 32), 1], [0, 0]]


def test_labels_out_of_range_and_maps_of_two_sizes_are_refused():
    found, truth = maps()
    with pytest.raises(UserError, match="labels 0 to 2 are not all in 0 to 1"):
        class_overlaps(found, truth, 2)
    with pytest.raises(UserError, match="cannot be compared"):
        iou(square(), square(size=32))
    with pytest.raises(UserError, match="no class occurs"):
        over_classes(class_overlaps(found, torch.full_like(truth, VOID), 4))
