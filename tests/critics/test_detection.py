import pytest
import torch
from torch import Tensor

from diorama.critics.detection import CENTRES, COCO, Detections, average_precision, average_recall, box_overlaps
from diorama.errors import UserError


def ranking(*fits: float, confidence=None, there: int = 1) -> Detections:
    """One real thing a column; found ones from the surest down, the i-th fitting the i-th real one this well."""
    fit = torch.zeros(len(fits), max(there, len(fits)))
    fit[range(len(fits)), range(len(fits))] = torch.tensor(fits)
    return Detections(torch.linspace(0.9, 0.1, len(fits)) if confidence is None else torch.tensor(confidence), fit[:, :there])


NOTHING = Detections(torch.zeros(0), torch.zeros(0, 0))


def test_a_perfect_and_an_empty_ranking():
    assert average_precision([ranking(1.0, 1.0, there=2)] * 2).value == 1
    empty = Detections(torch.zeros(0), torch.zeros(0, 3))
    assert average_precision([empty, empty]).value == 0
    assert average_recall([empty, empty]).value == 0


def test_precision_of_a_hand_made_ranking():
    """Right, wrong, right of three real ones: precision 1 up to recall 1/3, 2/3 up to 2/3, then nothing."""
    picture = Detections(torch.tensor([0.9, 0.8, 0.7]), torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 1.0, 0]]))
    assert average_precision([picture, NOTHING], at=(0.5,)).value == pytest.approx((34 * 1 + 33 * 2 / 3) / 101)
    assert average_recall([picture, NOTHING], at=(0.5,)).value == pytest.approx(2 / 3)
    assert average_recall([picture, NOTHING], k=2, at=(0.5,)).value == pytest.approx(1 / 3)


def test_an_overlap_counts_at_the_thresholds_below_it():
    assert average_precision([ranking(0.72), NOTHING]).value == pytest.approx(5 / 10)  # .5, .55, .6, .65, .7


def test_a_second_find_of_the_same_thing_is_wrong():
    double = Detections(torch.tensor([0.9, 0.8]), torch.tensor([[1.0, 0.0], [0.9, 0.0]]))
    assert average_precision([double, NOTHING], at=(0.5,)).value == pytest.approx(51 / 101)


def test_classes_are_averaged_and_do_not_match_each_other():
    fit = torch.eye(2)
    right = Detections(torch.tensor([0.9, 0.8]), fit, torch.tensor([0, 1]), torch.tensor([0, 1]))
    swapped = Detections(torch.tensor([0.9, 0.8]), fit, torch.tensor([0, 0]), torch.tensor([0, 1]))
    assert average_precision([right, right]).value == 1
    assert average_precision([swapped, swapped]).value == pytest.approx(0.5)


def test_the_centre_distance_counts_above_a_tenth_alone():
    """Half of the real ones found without a mistake: recalls 0.11 to 0.5 of the 90 above a tenth."""
    picture = Detections(torch.tensor([0.9]), torch.tensor([[-1.5, -9.0]]))
    score = average_precision([picture, NOTHING], CENTRES, floor=0.1)
    assert score.value == pytest.approx(40 / 90 / 2)  # within 2 and 4 metres, not within 0.5 and 1


def slow(pictures: list[tuple[Tensor, Tensor]], threshold: float) -> float:
    """Average precision by the definition, one step at a time."""
    found, real = [], sum(fit.shape[1] for _, fit in pictures)
    for confidence, fit in pictures:
        free = set(range(fit.shape[1]))
        for i in sorted(range(len(fit)), key=lambda i: -confidence[i]):
            j = max(free, key=lambda j: fit[i, j], default=None)
            hit = j is not None and fit[i, j] >= threshold
            free -= {j} if hit else set()
            found.append((float(confidence[i]), bool(hit)))
    found.sort(key=lambda pair: -pair[0])
    curve = [(sum(h for _, h in found[: n + 1]) / real, sum(h for _, h in found[: n + 1]) / (n + 1)) for n in range(len(found))]
    return sum(max((p for r, p in curve if r >= k / 100), default=0) for k in range(101)) / 101


def test_it_agrees_with_its_slow_twin():
    g = torch.Generator().manual_seed(0)
    pictures = [(torch.rand(n, generator=g), torch.rand(n, m, generator=g)) for n, m in ((5, 3), (0, 2), (7, 0), (6, 6), (3, 8))]
    score = average_precision([Detections(*picture) for picture in pictures])
    assert score.value == pytest.approx(sum(slow(pictures, threshold) for threshold in COCO) / len(COCO))


def test_the_error_is_that_of_many_repetitions():
    def scored(seed: int):
        g = torch.Generator().manual_seed(seed)
        return average_precision([ranking(*(torch.rand(3, generator=g) ** 0.5).tolist(), there=3) for _ in range(40)], at=(0.7,))

    scores = [scored(seed) for seed in range(25)]
    assert 0.7 < sum(s.stderr for s in scores) / 25 / torch.tensor([s.value for s in scores]).std() < 1.4


def test_boxes_overlap_as_their_areas_do():
    boxes = torch.tensor([[0.0, 0, 4, 4], [10, 10, 12, 12]])
    assert box_overlaps(boxes, torch.tensor([[2.0, 0, 6, 4]])).flatten().tolist() == pytest.approx([8 / 24, 0])


def test_what_cannot_be_ranked_is_refused():
    odd, broken = Detections(torch.ones(2), torch.ones(3, 1)), Detections(torch.tensor([torch.nan]), torch.ones(1, 1))
    with pytest.raises(UserError, match="picture 1 has not one confidence for each"):
        average_precision([ranking(1.0), odd])
    with pytest.raises(UserError, match="1 of 2 confidences are NaN"):
        average_precision([ranking(1.0), broken])
    with pytest.raises(UserError, match="something to find"):
        average_precision([NOTHING, NOTHING])
