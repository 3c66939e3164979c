import numpy as np
import pytest
import torch

from diorama.data.collage import collage
from diorama.data.runs import runs, unrun
from diorama.types import Noise


def test_runs_are_counted_down_the_columns_from_the_zeros():
    mask = np.array([[0, 1], [0, 1], [1, 0]], dtype=bool)
    assert runs(mask) == {"size": [3, 2], "counts": [2, 3, 1]}
    assert runs(~mask) == {"size": [3, 2], "counts": [0, 2, 3, 1]}
    assert runs(np.zeros((2, 2), dtype=bool))["counts"] == [4]
    assert runs(np.ones((2, 2), dtype=bool))["counts"] == [0, 4]


@pytest.mark.parametrize("seed", range(4))
def test_runs_come_back_as_they_went(seed):
    mask = np.random.default_rng(seed).random((7, 5)) < 0.4
    written = runs(mask)
    assert sum(written["counts"]) == mask.size
    assert np.array_equal(unrun(written), mask)


def test_runs_are_pycocotools_own():
    coco = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(0).random((7, 5)) < 0.4
    assert np.array_equal(coco.decode(coco.frPyObjects(runs(mask), *mask.shape)).astype(bool), mask)


def test_a_collage_shows_what_its_masks_say():
    """Three pictures of one colour each: where a mask is full, there is that colour."""
    image = torch.full((3, 4, 24, 24), 1.0)
    colours = torch.tensor([[0.9, -0.9, -0.9], [-0.9, 0.9, -0.9], [-0.9, -0.9, 0.9]])
    image[:, :3], image[:, 3] = 1.0, -1.0
    image[:, :3, 4:20, 4:20], image[:, 3, 4:20, 4:20] = colours[:, :, None, None], 1.0
    canvas, masks = collage(image, Noise(range(3)))
    assert masks.shape == (3, 3, 24, 24)
    assert (masks.sum(1) <= 1 + 1e-5).all()
    for i in range(3):
        assert (masks[i, -1] == 1).any()  # the uppermost is seen
        for k in range(3):
            shown = canvas[i, :, masks[i, k] > 0.999]
            assert torch.allclose(shown, colours[(i + k) % 3][:, None].expand_as(shown), atol=1e-3)
    again, _ = collage(image, Noise(range(3)))
    assert torch.equal(again, canvas)
