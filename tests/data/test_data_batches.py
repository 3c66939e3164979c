import numpy as np
import pytest
import torch
from data_makers import Listed, cutouts, disc, grey, greys, save
from PIL import Image

from diorama.data import Ahead, Batches, Item, Joined, Repeated, Subset, hold_out, index_at, open_data
from diorama.data.batches import fit
from diorama.errors import UserError
from diorama.types import NO_LABEL


def test_a_batch_is_the_items_of_its_positions():
    batches = Batches(greys(10), size=4, batch=3, seed=7)
    batch = batches(5)
    expected = [index_at(15 + k, 10, 7) for k in range(3)]
    assert batch.text == [str(i) for i in expected]
    assert batch.image.shape == (3, 4, 4, 4)
    assert batch.image.dtype == torch.float32
    torch.testing.assert_close(batch.image[:, 0, 0, 0], torch.tensor(expected) / 127.5 - 1)
    assert batch.image[:, 3].eq(1).all()
    assert batch.label.tolist() == [NO_LABEL] * 3


def test_in_order_every_item_comes_once():
    batches = Batches(greys(7), 4, 3, 0, ordered=True)
    assert [batches(step, stop=7).text for step in range(3)] == [["0", "1", "2"], ["3", "4", "5"], ["6"]]


def test_the_ranks_share_out_one_batch():
    whole = Batches(greys(50), 4, 8, 0)
    halves = Batches(greys(50), 4, 4, 0)
    for step in range(5):
        assert halves(step, 0, 2).text + halves(step, 1, 2).text == whole(step).text


def test_threads_and_reading_ahead_change_nothing():
    plain, ahead = Batches(greys(20), 4, 3, 1), Ahead(Batches(greys(20), 4, 3, 1, threads=2))
    for step in (2, 3, 4, 9, 0):  # in order and out of it
        assert torch.equal(ahead(step).image, plain(step).image)


def test_what_is_asked_for_twice_is_made_once():
    made = []
    ahead = Ahead(lambda *place: made.append(place[0]) or place)
    assert [ahead(step) for step in (0, 0, 1, 1, 2, 2)] == [(step, 0, 1) for step in (0, 0, 1, 1, 2, 2)]
    ahead._pool.shutdown()
    assert made == [0, 1, 2, 3]


def test_reading_ahead_passes_errors_on():
    with pytest.raises(UserError):
        Ahead(Batches(greys(4, broken=range(4)), 4, 2, 0, limit=1))(0)


def test_a_broken_item_gives_way_to_the_next_position():
    order = [index_at(k, 12, 0) for k in range(12)]
    batches = Batches(greys(12, broken=(order[1],)), 4, 3, 0)
    assert batches(0).text == [str(order[k]) for k in (0, 2, 2)]
    assert batches.skipped == {f"k{order[1]}": "cut short"}
    assert Batches(greys(12, broken=(order[1],)), 4, 3, 0)(0).text == batches(0).text


def test_too_many_broken_items_are_a_mistake_with_names():
    batches = Batches(greys(40, broken=range(20)), 4, 8, 0, limit=2)
    with pytest.raises(UserError, match=r"3 of 40 items could not be read \(allowed: 2\), first k\d+: cut short; k"):
        [batches(step) for step in range(5)]


def test_clear_pixels_are_white_and_alpha_is_kept():
    image = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 128))
    pixels = Batches(Listed([Item("a", image)]), 2, 1, 0)(0).image[0]
    assert pixels[:, 0, 0].tolist() == [1, 1, 1, -1]
    torch.testing.assert_close(pixels[:, 0, 1], torch.tensor([1, 127 / 127.5 - 1, 127 / 127.5 - 1, 128 / 127.5 - 1]))


def test_resizing_does_not_bleed_clear_colour():
    image = Image.new("RGBA", (8, 8), (0, 255, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 3, 8))
    small = np.asarray(fit(image, 4))
    assert small[:, 1, :3].tolist() == [[255, 0, 0]] * 4
    assert small[0, :, 3].tolist() == [255, 128, 0, 0]


def test_opaque_pictures_are_cropped_and_cut_outs_padded():
    wide = Image.new("RGBA", (12, 6), (0, 0, 255, 255))
    wide.paste((255, 0, 0, 255), (3, 0, 9, 6))
    assert fit(wide, 6).getcolors() == [(36, (255, 0, 0, 255))]
    clear = wide.copy()
    clear.putpixel((0, 0), (0, 0, 0, 0))
    padded = np.asarray(fit(clear, 12))[..., 3]
    assert padded[:3].max() == 0
    assert padded[4:9].min() == 255
    assert padded[9:].max() == 0


def test_labels_are_numbers_of_the_sorted_names(tmp_path):
    save(tmp_path / "b" / "1.png"), save(tmp_path / "a" / "1.png")
    batch = Batches(open_data(tmp_path), 8, 2, 0)(0)
    assert sorted(batch.label.tolist()) == [0, 1]


@pytest.mark.parametrize(("n", "size", "batch"), [(0, 4, 1), (1, 0, 1), (1, 4, 0)])
def test_nothing_to_batch_is_a_mistake(n, size, batch):
    with pytest.raises(UserError):
        Batches(greys(n), size, batch, 0)


# --- views ----------------------------------------------------------------------------------------


def texts(source):
    assert all(source.record(i)["text"] == source.read(i).text for i in range(len(source)))
    return [source.read(i).text for i in range(len(source))]


def test_views_are_sources():
    assert texts(Subset(greys(5), [4, 1])) == ["4", "1"]
    assert texts(Repeated(greys(3), [2, 0, 1])) == ["0", "0", "2"]
    assert texts(Joined([greys(2), Listed([]), Subset(greys(5), [4])])) == ["0", "1", "4"]
    with pytest.raises(IndexError):
        Joined([greys(2)]).read(2)
    with pytest.raises(ValueError, match="2 repeat counts for 3 items"):
        Repeated(greys(3), [1, 1])


def test_joined_labels_are_those_of_all():
    assert Joined([cutouts(2), Listed([Item("x", disc(), label="art")])]).labels == ("art", "flat", "solid")


def grid(concepts=60, styles=4):
    """Concept c in styles 0 .. c % styles, two variants each."""
    fields = [{"concept": f"c{c}", "style": f"s{s}"} for c in range(concepts) for s in range(c % styles + 1) for _ in range(2)]
    return Listed([Item(f"{i}", grey(0).image, fields=f) for i, f in enumerate(fields)])


def combinations(source):
    return {(source.record(i)["concept"], source.record(i)["style"]) for i in range(len(source))}


def test_hold_out_keeps_groups_whole_and_concepts_known():
    source = grid()
    train, test = hold_out(source, 0.3, seed=0)
    assert len(train) + len(test) == len(source)
    assert not combinations(train) & combinations(test)
    assert {c for c, _ in combinations(test)} <= {c for c, _ in combinations(train)}
    assert 0.15 < len(test) / len(source) < 0.35


def test_hold_out_does_not_move_what_it_knew_when_data_grows():
    small, large = (combinations(hold_out(grid(n), 0.3, seed=1)[1]) for n in (40, 60))
    assert small == {(c, s) for c, s in large if int(c[1:]) < 40}


def test_hold_out_of_plain_pictures_is_empty():
    train, test = hold_out(greys(5), 0.5, seed=0)
    assert (len(train), len(test)) == (5, 0)
    with pytest.raises(UserError, match="hold-out fraction 1"):
        hold_out(greys(5), 1.0, seed=0)
