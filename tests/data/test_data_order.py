from hypothesis import given, settings
from hypothesis import strategies as st

from diorama.data import index_at

seeds = st.integers(0, 2**62)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 300), epoch=st.integers(0, 50), seed=seeds)
def test_every_epoch_is_a_permutation(n, epoch, seed):
    assert sorted(index_at(epoch * n + k, n, seed) for k in range(n)) == list(range(n))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 2**40), position=st.integers(0, 2**50), seed=seeds)
def test_any_position_is_reached_without_walking(n, position, seed):
    assert 0 <= index_at(position, n, seed) < n


def test_seeking_equals_walking():
    walked = [index_at(k, 97, 5) for k in range(300)]
    assert [index_at(k, 97, 5) for k in reversed(range(300))] == walked[::-1]


def test_epochs_and_seeds_differ():
    first, second = ([index_at(e * 100 + k, 100, 0) for k in range(100)] for e in (0, 1))
    assert first != second != [index_at(k, 100, 1) for k in range(100)]


def test_the_order_is_the_same_for_ever():
    assert [index_at(k, 10, 0) for k in range(10)] == [3, 5, 6, 2, 4, 9, 7, 1, 8, 0]
