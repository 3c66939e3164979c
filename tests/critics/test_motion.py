import pytest
import torch

from diorama.critics.frechet import frechet
from diorama.critics.motion import end_point_error, flicker, frame_similarity, motion, persistence, steps, warp, warp_error
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


def test_what_fades_evenly_does_not_flicker_and_what_moves_is_not_asked():
    even = torch.linspace(-1, 1, 5)[None, None, :, None, None].expand(1, 3, 5, 4, 4)
    everywhere = torch.ones(1, 3, 4, 4, dtype=torch.bool)
    assert flicker(even, everywhere).item() == pytest.approx(0, abs=1e-6)
    blinking = even.clone()
    blinking[:, :, 2, 0, 0] += 0.4  # counts once before, twice at and once after: 4 * 0.4 in 3 * 16 places
    assert flicker(blinking, everywhere).item() == pytest.approx(1.6 / 48)
    still = everywhere.clone()
    still[:, :, 0, 0] = False
    assert flicker(blinking, still).item() == pytest.approx(0, abs=1e-6)


def tracked():
    """Two clips of four frames and two things; the second thing is not there in the second clip."""
    kinds = torch.tensor([[3, 5], [3, -1]])[:, None].repeat(1, 4, 1)
    places = torch.stack([torch.arange(4.0)[:, None].expand(4, 2), torch.zeros(4, 2)], -1).repeat(2, 1, 1, 1)
    return kinds, places


def test_what_stays_itself_and_makes_no_leaps_persists():
    kinds, places = tracked()
    assert persistence(kinds, places, 1.5).tolist() == [1.0, 1.0]
    assert persistence(kinds, places, 0.5).tolist() == [0.0, 0.0]
    assert steps(kinds, places).tolist() == [1.0, 1.0]
    kinds[0, 2, 1] = 4  # it is something else for one frame
    assert persistence(kinds, places, 1.5).tolist() == [pytest.approx(2 / 3), 1.0]
    places[1, :, 1] = torch.nan  # where a thing that is not there may be is nobody's business
    assert persistence(kinds, places, 1.5)[1] == 1.0
    assert steps(kinds, places)[1] == 1.0
    places[1, 2:, 0, 0] += 5  # one leap
    assert persistence(kinds, places, 1.5)[1] == pytest.approx(2 / 3)


def test_where_nothing_is_seen_at_first_nothing_persists():
    kinds, places = tracked()
    kinds[1] = -1
    assert persistence(kinds, places, 9.0).tolist() == [1.0, 0.0]
    assert steps(kinds, places)[1].isnan()


def test_what_does_not_fit_is_refused():
    clip, flow = rolling()
    with pytest.raises(UserError, match="give one of 1 x 2 x 3 x 12 x 16"):
        warp_error(clip, flow[:, :, :2])
    with pytest.raises(UserError, match="what is visible"):
        end_point_error(flow, flow, torch.ones(1, 3, 12, 15, dtype=torch.bool))
    with pytest.raises(UserError, match="1 of 2 values are NaN"):
        end_point_error.score(torch.tensor([1.0, torch.nan]))
    with pytest.raises(UserError, match="2 frames cannot flicker"):
        flicker(clip[:, :, :2], torch.ones(1, 0, 12, 16).bool())
    with pytest.raises(UserError, match="1 frame"):
        frame_similarity(torch.ones(2, 1, 4))
