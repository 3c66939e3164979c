import wave

import pytest
import torch

from diorama.errors import UserError
from diorama.types import Noise
from diorama.worlds.clips import Clip, ClipRules, Motion, Shot, clip
from diorama.worlds.scene import Rules
from diorama.worlds.sound import HOP, LOUD, PITCHES, QUIET, RATE, audible, listen, matched, sound, write_wav

ONE = ClipRules(world=Rules(most=1, subjects=0), laws=("fall",), changes=0.0, hidden=True)


@pytest.fixture(scope="module")
def heard():
    made = [clip(5, i, ClipRules(hidden=True)) for i in range(24)]
    return [(audible(one), listen(sound(one))) for one in made]


def test_a_waveform_is_as_long_as_its_clip_and_the_same_again():
    made = clip(1, 3, ClipRules(frames=9, fps=6.0))
    wave_ = sound(made)
    assert wave_.shape == (24000,) and wave_.dtype == torch.float32 and float(wave_.abs().max()) <= 1
    assert torch.equal(wave_, sound(clip(1, 3, ClipRules(frames=9, fps=6.0))))


def test_nothing_sounds_where_nothing_happens():
    made = clip(1, 3, ClipRules(defects=("static",), defective=1.0))
    assert not sound(made).any() and listen(sound(made)) == [] and listen(torch.zeros(10)) == []


def test_every_lone_bounce_is_read_back_with_material_and_speed():
    count = 0
    for i in range(12):
        made = clip(5, i, ONE)
        true = [e for e in audible(made) if e.time < made.seconds - 0.05]
        for event, found in matched(listen(sound(made)), true):
            assert found is not None and abs(found.time - event.time) <= HOP / RATE
            if event.kind == "bounce":
                frame = min((e for e in made.events() if e.kind == "bounce"), key=lambda e: abs(e.time - found.time)).frame
                assert abs(found.time - frame / made.fps) <= 0.5 / made.fps + HOP / RATE
                assert found.speed == pytest.approx(event.speed, abs=0.02)
                count += 1
    assert count >= 12


def test_the_strongest_frequency_of_a_bounce_is_its_material():
    for i in range(12):
        made = clip(5, i, ONE)
        event = next((e for e in audible(made) if e.kind == "bounce" and e.time < 1.8), None)
        if event is None:
            continue
        start = round(event.time * RATE)
        spectrum = torch.fft.rfft(sound(made)[start : start + 1600]).abs()
        assert float(spectrum.argmax()) * RATE / 1600 == pytest.approx(PITCHES[event.materials[0]], abs=15)


def test_louder_is_faster():
    scene = clip(1, 0, ONE).shots[0].scene
    starts = [Shot(scene=scene, motions=(Motion(vx=v),), law="box") for v in (0.5, 1.0)]
    peaks = [float(sound(Clip(seed=0, index=0, frames=32, fps=8.0, shots=(shot,))).abs().max()) for shot in starts]
    assert peaks[1] == pytest.approx(2 * peaks[0], rel=1e-3) and peaks[0] <= LOUD


def test_almost_everything_is_heard_in_a_crowd(heard):
    """Sounds within a few milliseconds of each other may be mistaken; docs/world-clips.md has the numbers of more clips."""
    pairs = [pair for true, found in heard for pair in matched(found, true)]
    right = sum(found is not None for _, found in pairs)
    extra = sum(len(found) for _, found in heard) - right
    assert len(pairs) > 100 and right >= 0.95 * len(pairs) and extra <= 0.2 * len(pairs)
    assert {event.kind for event, _ in pairs} == {"bounce", "collision", "shape", "colour"}
    assert all(event.kind in ("shape", "colour") or event.speed >= QUIET for event, _ in pairs)


def test_a_little_noise_changes_nothing():
    made = next(m for m in (clip(5, i, ONE) for i in range(40)) if len(audible(m)) == 2)
    clean = sound(made)
    noisy = clean + 1e-3 * Noise([1]).normal(len(clean))[0]
    assert [(h.kind, h.materials) for h in listen(noisy)] == [(h.kind, h.materials) for h in listen(clean)]


def test_a_file_holds_the_waveform(tmp_path):
    made = sound(clip(5, 0))
    write_wav(tmp_path / "a.wav", made)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (RATE, 1, len(made))
        read = torch.frombuffer(bytearray(file.readframes(len(made))), dtype=torch.int16) / 32767
    torch.testing.assert_close(read, made, atol=1 / 32767, rtol=0)


@pytest.mark.parametrize("wrong", [torch.zeros(0), torch.zeros(2, 9), torch.full((9,), torch.nan)])
def test_what_is_no_waveform_is_told_and_not_written(wrong, tmp_path):
    with pytest.raises(UserError, match="waveform"):
        write_wav(tmp_path / "a.wav", wrong)
    assert not list(tmp_path.iterdir())
