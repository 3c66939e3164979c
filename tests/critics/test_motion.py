import pytest
import torch

from diorama.critics.frechet import frechet
from diorama.critics.motion import end_point_error, frame_similarity, motion, warp, warp_error
from diorama.errors import UserError


def rolling(t: int = 4, right: int = 2, down: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """A clip (1, 3, t, 12, 16) in which all moves by whole pixels, and its flow."""
    first = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    clip = torch.stack([first.roll((i * down, i * right), (2, 3)) for i in range(t)], 2)
    flow = torch.tensor([float(right), float(down)])[None, :, None, None, None].expand(1, 2, t - 1, 12, 16)
    return clip, flow


def test_the_true_flow_explains_everything():
    clip, flow = rolling()
    assert warp_error(clip, flow).item() == pytest.approx(0, abs=1e-9)
    assert warp_error(clip, -flow).item() > 0.05
    frozen = clip[:, :, :1].expand_as(clip)
    assert warp_error(frozen, torch.zeros_like(flow)).item() == pytest.approx(0, abs=1e-9)


def test_only_what_is_visible_counts():
    clip, flow = rolling()
    broken, visible = clip.clone(), torch.ones(1, 3, 12, 16, dtype=torch.bool)
    broken[:, :, 2, 5, 7] += 1  # seen at (5, 7) of frame 2 and, from frame 1, at (4, 5)
    visible[:, 2, 5, 7] = visible[:, 1, 4, 5] = False
    assert warp_error(broken, flow).item() > 1e-4
    assert warp_error(broken, flow, visible).item() == pytest.approx(0, abs=1e-9)


def test_half_a_pixel_is_the_mean_of_two():
    image = torch.arange(5.0)[None, None, None].expand(1, 1, 3, 5)
    flow = torch.zeros(1, 2, 3, 5)
    flow[:, 0] = 0.5
    moved, inside = warp(image, flow)
    assert moved[0, 0, 0].tolist() == pytest.approx([0.5, 1.5, 2.5, 3.5, 4.0])
    assert inside[0, 0].tolist() == [True, True, True, True, False]


def test_flow_errors_and_motion_have_their_known_lengths():
    _, flow = rolling(right=3, down=4)
    assert end_point_error(flow, torch.zeros_like(flow)).item() == pytest.approx(5)
    assert motion(flow).item() == pytest.approx(5)
    visible = torch.zeros(1, 3, 12, 16, dtype=torch.bool)
    visible[:, 0] = True
    truth = flow.clone()
    truth[:, :, 1:] = 0
    assert end_point_error(flow, truth, visible).item() == 0


def test_neighbouring_frames_at_right_angles_are_not_alike():
    features = torch.eye(3)[None, [0, 0, 1]]
    assert frame_similarity(features).item() == 0.5


def test_a_distance_of_clips_sees_what_a_distance_of_frames_cannot():
    """Shuffled frames are the same frames; the features of whole clips know their order."""
    g = torch.Generator().manual_seed(0)
    clips = torch.randn(200, 6, 4, generator=g).cumsum(1)
    shuffled = clips[:, torch.randperm(6, generator=g)]
    assert frechet(shuffled.flatten(0, 1), clips.flatten(0, 1), repeats=2).value == pytest.approx(0, abs=1e-6)
    steps = [(part[:, 1:] - part[:, :-1]).square().mean(1) for part in (shuffled, clips)]
    assert frechet(*steps, repeats=2).value > 1


def test_what_does_not_fit_is_refused():
    clip, flow = rolling()
    with pytest.raises(UserError, match="give one of 1 x 2 x 3 x 12 x 16"):
        warp_error(clip, flow[:, :, :2])
    with pytest.raises(UserError, match="what is visible"):
        end_point_error(flow, flow, torch.ones(1, 3, 12, 15, dtype=torch.bool))
    with pytest.raises(UserError, match="1 of 2 values are NaN"):
        end_point_error.score(torch.tensor([1.0, torch.nan]))
    with pytest.raises(UserError, match="1 frame"):
        frame_similarity(torch.ones(2, 1, 4))
