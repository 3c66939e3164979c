"""Rows of what was seen with known verdicts, and a stream that holds one chunk of pictures at a time."""

import gc
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from data_makers import Listed, disc
from PIL import Image

from diorama.data import Item, Unreadable
from diorama.data.curate import CHUNK, CODES, FILTERS, REASONS, SEEN, Limits, Looker, curate, judge, look
from diorama.data.wording import FAULTS
from diorama.errors import UserError


def rows(n, **columns):
    """n sound pictures, none like another; `columns` changes single cells: {place: value}."""
    found = np.zeros(n, SEEN)
    found["readable"], found["words"], found["saying"] = True, 3, np.arange(1, n + 1)
    for name in ("score", "area", "agreement", "colour"):
        found[name] = np.nan
    found["hash"] = np.random.default_rng(0).integers(0, 1 << 16, (n, 4))
    for name, cells in columns.items():
        for place, value in cells.items():
            found[name][place] = value
    return found


def names(verdicts):
    return [["kept", *REASONS][code] for code in verdicts.reason]


ONE = {
    "unreadable": rows(4, readable={1: False}),
    **{fault: rows(4, fault={1: FAULTS.index(fault)}) for fault in FAULTS[1:]},
    "small": rows(4, area={0: 0.5, 1: 0.01}),
    "large": rows(4, area={0: 0.5, 1: 0.95}),
    "disagree": rows(4, area={1: 0.5}, agreement={0: 0.6, 1: 0.4}),
    "colour": rows(4, area={1: 0.5}, colour={0: 0.05, 1: 0.0}),
    "unlike": rows(4, score={0: 0.3, 1: 0.1, 2: 0.2, 3: 0.4}),
    "short": rows(4, words={1: 1}),
}


@pytest.mark.parametrize("name", ONE)
def test_each_reason_is_found_for_itself(name):
    verdicts = judge(ONE[name], Limits(worst=0.25, least_words=2, most_area=0.9))
    assert names(verdicts) == ["kept", name, "kept", "kept"]
    assert verdicts.kept.tolist() == [0, 2, 3]
    assert verdicts.counts[name] == 1


def test_a_caption_that_too_many_have_is_dropped_unless_it_is_the_label():
    many = rows(100, saying=dict.fromkeys(range(30), 7) | dict.fromkeys(range(30, 80), 0) | dict.fromkeys(range(80, 100), 9))
    verdicts = judge(many, Limits(repeats=0.02))
    assert names(verdicts) == ["repeated"] * 30 + ["kept"] * 70  # twenty are not many


def test_of_two_alike_the_later_goes_and_none_is_a_twin_of_what_is_dropped():
    same = np.ones(4)
    alike = rows(4, hash=dict.fromkeys((0, 2, 3), same), fault={0: FAULTS.index("boilerplate")})
    verdicts = judge(alike, Limits())
    assert names(verdicts) == ["boilerplate", "kept", "kept", "duplicate"]
    assert verdicts.twin.tolist() == [-1, -1, -1, 2]


def test_the_worst_are_a_share_of_what_the_filters_before_left():
    scored = rows(10, score=dict(enumerate(np.linspace(-1, 1, 10))), fault=dict.fromkeys(range(5), 1))
    verdicts = judge(scored, Limits(worst=0.4))
    assert [name == "unlike" for name in names(verdicts)] == [False] * 5 + [True, True] + [False] * 3
    assert verdicts.line == pytest.approx(scored["score"][7])
    assert verdicts.counts["unlike"] == 7
    assert (judge(scored, Limits(least_score=0.6)).reason == CODES["unlike"]).sum() == 3


@pytest.mark.parametrize("left", FILTERS)
def test_a_filter_that_is_left_out_drops_nothing(left):
    everything = np.concatenate([*ONE.values(), rows(2, hash={0: np.ones(4), 1: np.ones(4)})])
    limits = Limits(worst=0.25, least_words=2, most_area=0.9)
    assert {REASONS[name].filter for name in names(judge(everything, limits)) if name != "kept"} == {"unreadable", *FILTERS}
    fewer = judge(everything, replace(limits, filters=[name for name in FILTERS if name != left]))
    assert left not in {REASONS[name].filter for name in names(fewer) if name != "kept"}


def test_what_was_not_looked_at_is_told_and_drops_nothing():
    verdicts = judge(rows(3, fault=dict.fromkeys(range(3), FAULTS.index("empty"))), Limits())
    assert names(verdicts) == ["kept"] * 3
    assert [note.split(":")[0] for note in verdicts.notes] == ["caption", "mask", "retrieval"]


def test_impossible_limits_are_told():
    with pytest.raises(UserError, match="filter 'blur' is not known: use caption, mask, retrieval, duplicate"):
        Limits(filters=("blur",))
    with pytest.raises(UserError, match=r"alike 2 is not allowed: use 0 to 1"):
        Limits(alike=2)
    with pytest.raises(UserError, match=r"areas of 0.5 to 0.1 keep nothing"):
        Limits(least_area=0.5, most_area=0.1)


# --- looking ---


def test_an_item_is_seen_as_it_is():
    def scorer(image, texts):
        assert image.shape == (2, 4, 16, 16)
        return torch.tensor([float(len(text)) for text in texts])

    items = [Item("a.png", disc(), "a red disc"), Unreadable("b: cut short"), Item("c.png", disc((0, 0, 255)), "a red one")]
    red, broken, blue = Looker(scorer, 16)(items)
    assert (red["readable"], broken["readable"]) == (True, False)
    assert (red["score"], blue["score"]) == (10, 9) and np.isnan(broken["score"])
    assert red["area"] == pytest.approx(np.pi * 12**2 / 32**2, abs=0.02)
    assert (red["colour"], blue["colour"]) == (1, 0)


def test_masks_that_others_made_are_found_by_their_names():
    half = Image.new("L", (10, 10), 0)
    half.paste(255, (0, 0, 5, 10))
    masks = Listed([Item("a.jpg", half.convert("RGBA"))])
    seen = Looker(masks=[masks])([Item("a.png", disc(), "a disc"), Item("b.png", disc(), "a disc")])
    assert seen["area"].tolist() == pytest.approx([0.5, np.pi * 12**2 / 32**2], abs=0.02)
    assert seen["agreement"][0] < 0.5 and np.isnan(seen["agreement"][1])


class Counted:
    """A source that counts how many of its pictures are held at once."""

    labels = ()

    def __init__(self, n):
        self.n, self.held, self.most, self.lock = n, 0, 0, threading.Lock()

    def __len__(self):
        return self.n

    def record(self, i):
        return {"key": str(i), "text": f"thing {i}", "label": None}

    def _count(self, change):
        with self.lock:
            self.held += change
            self.most = max(self.most, self.held)

    def read(self, i):
        image = Image.new("RGBA", (4, 4), (i % 256, i // 256, 0, 255))
        self._count(1)
        weakref.finalize(image, self._count, -1)
        return Item(str(i), image, f"thing {i}")


def test_memory_does_not_grow_with_the_data():
    small, large = Counted(CHUNK + 8), Counted(4 * (CHUNK + 8))
    for source in (small, large):
        for chunk in look(source, Looker()):
            assert len(chunk) <= CHUNK
            del chunk
        gc.collect()
        assert source.held == 0
    assert small.most == large.most == CHUNK


def test_chunks_begin_where_asked_and_all_is_judged_together():
    source = Counted(150)
    whole = np.concatenate(list(look(source, Looker())))
    assert np.array_equal(np.concatenate(list(look(source, Looker(), 64))).view(np.uint8), whole[64:].view(np.uint8))
    assert np.array_equal(curate(source, Looker(), Limits()).reason, judge(whole, Limits()).reason)
