import random
from collections import Counter

import pytest

from diorama.data.balance import balance
from diorama.errors import UserError

CAPTIONS = ["A red dog"] * 50 + ["a cat, red!"] * 20 + ["the blue bird"] * 3 + ["nothing of it"] * 10


def test_no_query_has_more_than_its_share():
    kept = balance(CAPTIONS, ["dog", "cat", "bird"], 8, random.Random(0))
    assert Counter(CAPTIONS[i] for i in kept) == {"A red dog": 8, "a cat, red!": 8, "the blue bird": 3}
    assert kept == sorted(set(kept))


def test_a_caption_of_two_queries_stays_where_either_chose_it():
    assert len(balance(["red dog", "red cat", "red cow"], ["red", "dog"], 1, random.Random(3))) in (1, 2)
    assert 0 in balance(["red dog", "red cat", "red cow"], ["red", "dog"], 1, random.Random(3))


def test_several_words_are_one_query_and_parts_of_words_are_none():
    assert balance(["a red dog", "a dog, red", "a redder dog"], ["red dog"], 9, random.Random(0)) == [0]


def test_every_one_of_a_query_is_as_likely_to_stay():
    counts = Counter(i for seed in range(600) for i in balance(["dog"] * 10, ["dog"], 3, random.Random(seed)))
    assert all(abs(counts[i] / 600 - 0.3) < 0.07 for i in range(10))  # 3.7 standard errors


def test_it_reads_a_stream():
    assert balance((f"dog {i}" for i in range(1000)), ["dog"], 5, random.Random(0)) == balance(
        [f"dog {i}" for i in range(1000)], ["dog"], 5, random.Random(0)
    )


@pytest.mark.parametrize(("queries", "cap"), [(["dog"], 0), ([], 5)])
def test_what_would_keep_nothing_is_told(queries, cap):
    with pytest.raises(UserError):
        balance(CAPTIONS, queries, cap, random.Random(0))
