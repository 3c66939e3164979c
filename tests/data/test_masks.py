"""Masks with known areas and overlaps."""

import math

import numpy as np
import pytest

from diorama.data.masks import agreement, as_mask, colours_shown, subject

RED, BLUE, WHITE = (220, 30, 30, 255), (40, 80, 230, 255), (250, 250, 250, 255)


def picture(ground=WHITE, things=()):
    """64 x 64 of one colour with rectangles (colour, rows, columns) on it."""
    found = np.empty((64, 64, 4), np.uint8)
    found[:] = ground
    for colour, rows, columns in things:
        found[rows, columns] = colour
    return found


SQUARE = (slice(16, 48), slice(16, 48))  # a quarter of the picture


def test_the_subject_is_what_alpha_shows():
    mask = subject(picture((255, 255, 255, 0), [(WHITE, *SQUARE)]))
    assert mask.mean() == 0.25
    assert mask[SQUARE].all()


def test_of_an_opaque_picture_it_is_what_stands_apart_from_a_plain_ground():
    assert subject(picture(things=[(RED, *SQUARE)])).mean() == 0.25


def test_without_a_plain_ground_there_is_no_mask():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 4), dtype=np.uint8)
    noise[..., 3] = 255
    assert subject(noise) is None


def test_masks_agree_by_their_overlap():
    a, b, none = (np.zeros((8, 8), bool) for _ in range(3))
    a[:4], b[2:6] = True, True
    assert agreement([a, b]) == pytest.approx(2 / 6)
    assert agreement([a, a, b]) == pytest.approx(2 / 6)
    assert agreement([none, none]) == 1
    assert math.isnan(agreement([a]))


def test_a_picture_made_as_a_mask_is_read_by_alpha_or_by_brightness():
    bright = picture((0, 0, 0, 255), [(WHITE, *SQUARE)])
    clear = picture((0, 0, 0, 0), [((0, 0, 0, 255), *SQUARE)])
    assert np.array_equal(as_mask(bright), as_mask(clear))
    assert as_mask(bright).mean() == 0.25


def test_the_colour_seen_least_counts():
    shown = picture(things=[(RED, slice(16, 40), slice(16, 48)), (BLUE, slice(40, 48), slice(16, 48))])
    mask = subject(shown)
    assert colours_shown(shown, mask, "a red thing on a Blue one") == 0.25
    assert colours_shown(shown, mask, "a red thing") == 0.75
    assert colours_shown(shown, mask, "a green and red thing") == 0
    assert math.isnan(colours_shown(shown, mask, "a black shirt"))
    assert math.isnan(colours_shown(shown, mask, "a hundred bored cats"))  # no word of it is a colour
