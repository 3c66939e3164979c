import pytest
import torch

from diorama.errors import UserError
from diorama.types import Noise
from diorama.worlds.captions import caption
from diorama.worlds.oracle import Oracle
from diorama.worlds.render import render
from diorama.worlds.scene import Rules, scene

SCENES = [scene(21, i, Rules(subjects=0)) for i in range(12)]


@pytest.fixture(scope="module")
def readings():
    return Oracle().read(render(SCENES, 64).image)


def test_what_is_drawn_is_read(readings):
    """Counted over all things; docs/world.md has the numbers of a thousand scenes."""
    right = total = 0
    for made, reading in zip(SCENES, readings, strict=True):
        drawn = {(t.shape, t.colour, t.size) for t in made.named}
        right += len(drawn & {(f.shape, f.colour, f.size) for f in reading.named})
        total += len(drawn)
    assert right >= total - 1


def test_places_are_read_to_a_fraction_of_a_pixel(readings):
    for made, reading in zip(SCENES, readings, strict=True):
        if made.style != "pixel" and len(reading.named) == len(made.named):
            for found in reading.named:
                assert min(abs(t.x - found.x) + abs(t.y - found.y) for t in made.named) < 1 / 64


def test_captions_score_high_on_their_own_pictures_and_low_on_others():
    oracle, image = Oracle(), render(SCENES, 64).image
    words = [caption(s, form="long") for s in SCENES]
    own = oracle.score(oracle.observe(image, words))
    others = oracle.score(oracle.observe(image.roll(1, 0), words))
    assert own.value >= 0.75
    assert others.value <= 0.1
    assert (own.n, own.unit, own.higher_is_better) == (12, "share", True)


def test_garbage_is_unreadable():
    noise = Noise([1, 2]).uniform(4, 64, 64) * 2 - 1
    smooth = torch.nn.functional.interpolate(Noise([3, 4]).uniform(4, 6, 6) * 2 - 1, (64, 64), mode="bicubic").clamp(-1, 1)
    blank = torch.stack([torch.full((4, 64, 64), level) for level in (-1.0, 0.0, 1.0)])
    readings = Oracle().read(torch.cat([noise, smooth, blank]))
    assert not any(reading.readable for reading in readings)
    assert all(reading.why and not reading.named for reading in readings)


def test_an_unreadable_picture_keeps_no_claim():
    assert Oracle().observe(torch.zeros(1, 4, 32, 32), ["no red stars"]).tolist() == [[0, 0, 0]]


def test_what_the_oracle_cannot_take_is_told():
    oracle = Oracle()
    with pytest.raises(UserError, match="square"):
        oracle.read(torch.zeros(1, 4, 32, 48))
    with pytest.raises(UserError, match="32 to 128"):
        oracle.read(torch.zeros(1, 4, 16, 16))
    with pytest.raises(UserError, match="finite"):
        oracle.read(torch.full((1, 3, 32, 32), torch.nan))
    with pytest.raises(UserError, match="1 pictures and 2 captions"):
        oracle.observe(torch.zeros(1, 3, 32, 32), ["a star", "a ring"])
    with pytest.raises(UserError, match="cannot read"):
        oracle.observe(torch.zeros(1, 3, 32, 32), ["a blorp"])
    with pytest.raises(UserError, match="no picture"):
        oracle.score(torch.zeros(0, 3))
