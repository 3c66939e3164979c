"""The claim's own pieces, each against an answer that is known."""

from dataclasses import replace

import pytest
import tiny
import torch

from diorama.adapters.temporal import inflate
from diorama.claims import video_ldm
from diorama.claims.claim import Effect
from diorama.claims.verdict import judge
from diorama.claims.video_ldm import Experiment, Scratch, at_rest
from diorama.critics.motion import persistence, steps
from diorama.foundations import folder_of
from diorama.systems.video.video_ldm import VideoLDM
from diorama.types import Batch, Noise

QUICK = replace(video_ldm.CLAIM, drawn=48, plan=replace(video_ldm.PLAN, steps=1, batch=1, warmup=1))


def squares(n, jump=0):
    """n clips of a bright square that goes a pixel to the right in each of four frames, or elsewhere every second one."""
    x = -torch.ones(n, 4, 4, 16, 16)
    for t in range(4):
        first = 2 + t + jump * (t % 2)
        x[:, :, t, 4:9, first : first + 5] = 1
    return x


class Judge:
    """Sees where things are, and how that changes."""

    def features(self, clips):
        where = (clips[:, 0] > 0).float().mean(2) @ torch.arange(16.0)
        return torch.cat([where, where.diff(dim=1)], 1) + 0.01 * Noise(range(len(clips))).normal(7)


def read(clips):
    """What the oracle would: one thing, and its middle."""
    bright = (clips[:, 0] > 0).float()
    x = (bright.sum(2) * torch.arange(16.0)).sum(-1) / bright.sum((2, 3)) / 16
    return torch.zeros(*x.shape, 1, dtype=torch.int64), torch.stack([x, torch.zeros_like(x)], -1)[:, :, None]


@pytest.fixture
def experiment(monkeypatch):
    made = Experiment(QUICK, 0)
    made.model, made.judge, made.real = tiny.flow(), Judge(), Batch(squares(48), ["a red square"] * 48)
    monkeypatch.setattr(video_ldm, "world", lambda seed, rules=None: type("W", (), {"batch": lambda self, i, n: made.real})())
    monkeypatch.setattr(video_ldm, "tracked", read)
    monkeypatch.setattr(made, "taught", lambda make: make(made.model))
    return made


def painted(good, scratch, apart):
    """What each arm's model draws, told apart by its weights' names."""

    def draw(system):
        if isinstance(system, Scratch):
            return scratch
        return good if hasattr(system, "learned") else apart

    return draw


def learned(painter):
    system = VideoLDM.on(painter)
    system.learned = True
    return system


def test_clips_like_real_ones_hold_and_leaping_ones_do_not(experiment, monkeypatch):
    experiment.claim = replace(QUICK, inflated=learned)
    leaping = squares(48, jump=6)
    monkeypatch.setattr(experiment, "draw", painted(squares(48), leaping, leaping))
    found = experiment.alignment()
    assert all(found[part].value > margin for part, margin in (("A1", 0.0), ("A2", 0.25), ("A3", 0.0)))
    assert found["A2"].arms == {"inflated": 1.0, "apart": 0.0, "real": 1.0}
    monkeypatch.setattr(experiment, "draw", painted(leaping, squares(48), leaping))
    found = experiment.alignment()
    assert all(found[part].value <= 0 for part in ("A1", "A2", "A3"))


def test_a_frozen_clip_fails_for_want_of_motion(experiment, monkeypatch):
    experiment.claim = replace(QUICK, inflated=learned)
    frozen = squares(48)[:, :, :1].expand(-1, -1, 4, -1, -1)
    monkeypatch.setattr(experiment, "draw", painted(frozen, squares(48, 6), squares(48, 6)))
    found = experiment.alignment()
    assert found["A2"].arms["inflated"] == 1.0
    assert found["A3"].value == pytest.approx(video_ldm.MARGIN_A3 - 1)


def test_where_nothing_can_be_read_nothing_persists_or_goes(experiment, monkeypatch):
    experiment.claim = replace(QUICK, inflated=learned)
    real, blank = squares(48), -torch.ones(48, 4, 4, 16, 16)
    monkeypatch.setattr(video_ldm, "tracked", lambda x: read(x) if bool((x > 0).any()) else (read(real)[0] - 1, read(real)[1]))
    monkeypatch.setattr(experiment, "draw", painted(blank, blank, blank))
    found = experiment.alignment()
    assert (found["A2"].value, found["A3"].value) == (0.0, video_ldm.MARGIN_A3 - 1)


def test_from_scratch_all_of_the_network_learns_and_begins_anew():
    system = Scratch.on(tiny.flow())
    (phase,) = system.phases()
    assert {id(p) for p in system.network.parameters()} <= {id(p) for p in phase.parameters}
    assert all(p.requires_grad for p in phase.parameters)
    assert not torch.equal(tiny.weights(system.network), tiny.weights(tiny.flow().network))
    assert system.painter.network is system.network


def test_the_real_world_persists_and_what_jumps_between_two_clips_does_not():
    clips, leap = video_ldm.world(5).batch(0, 2).image, video_ldm.LEAP / video_ldm.FPS
    track = video_ldm.tracked(clips)
    assert persistence(*track, leap).mean() > 0.8
    assert 0 < steps(*track).nanmean() < leap
    kinds, places = (torch.stack([part[t % 2, t] for t in range(8)])[None] for part in track)
    assert persistence(kinds, places, leap).item() < 0.3


def test_what_rests_rests_in_three_frames():
    clips = torch.zeros(1, 3, 5, 2, 2)
    clips[:, :, 2, 0, 0] = 1
    still = at_rest(clips)
    assert still.shape == (1, 3, 2, 2)
    assert still[0, :, 0, 0].tolist() == [False, False, False]
    assert still[0, :, 1, 1].all()


@pytest.mark.skipif(folder_of(video_ldm.CODEC) is None, reason=f"needs {video_ldm.CODEC}")
def test_a_decoder_without_layers_over_time_fails(monkeypatch):
    monkeypatch.setattr(video_ldm, "SEEN", 1)
    plan = replace(video_ldm.DECODER_PLAN, steps=1, batch=1, warmup=1)
    broken = replace(video_ldm.CLAIM, decoder_plan=plan, between=lambda decoder: inflate(torch.nn.Identity()))
    found = Experiment(broken, 0).decoders()
    part = next(part for part in broken.parts if part.letter == "B1")
    arms = found["B1"].arms
    assert arms["temporal"] == pytest.approx(arms["by frames"], rel=0.1)
    assert judge(part, [Effect(found["B1"].value)] * 3).verdict == "fails"


def test_without_its_models_nothing_is_claimed(monkeypatch):
    def gone(name):
        raise video_ldm.UserError(f"needs {name}")

    monkeypatch.setattr(video_ldm, "model_folder", gone)
    effects = video_ldm.CLAIM.run(0)
    assert set(effects) == {part.letter for part in video_ldm.CLAIM.parts}
    assert {effect.note for effect in effects.values()} == {"needs world-motion", f"needs {video_ldm.CODEC}"}
    assert all(effect.value is None for effect in effects.values())
