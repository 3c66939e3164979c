import pytest
import torch

from diorama.types import NO_LABEL, Condition, Noise, TextEmbedding, mix

DRAWS = [lambda n: n.normal(3, 2), lambda n: n.uniform(5), lambda n: n.integers(1000, 4)]


def text(b=3, n=2, d=4, seed=0):
    noise = Noise(range(seed, seed + b))
    return TextEmbedding(noise.normal(n, d), torch.ones(b, n, dtype=torch.bool), noise.normal(d))


def asked(b=3, n=2):
    return Condition(
        text=text(b, n), label=torch.arange(b), known=torch.ones(b, 1, 2, 2), extra={"time": torch.arange(b).float()}
    )


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("draw", DRAWS)
def test_a_sample_draws_the_same_alone_and_in_any_batch(draw):
    together = draw(Noise([7, 8, 9]))
    assert all(torch.equal(together[i], draw(Noise([7 + i]))[0]) for i in range(3))


def test_draws_follow_one_another():
    a, b = Noise([3]), Noise([3])
    first = a.normal(2)
    assert not torch.equal(first, a.normal(2))
    assert torch.equal(first, b.normal(2))


def test_draws_have_their_laws():
    normal, uniform, integers = Noise([0]).normal(100_000), Noise([0]).uniform(100_000), Noise([0]).integers(10, 100_000)[0]
    assert abs(normal.mean()) < 0.01
    assert abs(normal.std() - 1) < 0.01
    assert 0 <= uniform.min() < 1e-3
    assert 1 - 1e-3 < uniform.max() < 1
    assert integers.bincount().min() > 9_000
    assert integers.max() == 9


def test_a_steps_noise_is_counted_by_sample():
    whole = Noise.at(5, 3, n=4).normal(2)
    halves = [Noise.at(5, 3, rank, 2, n=2).normal(2) for rank in range(2)]
    accumulated = [Noise.at(5, 6 + micro, n=2).normal(2) for micro in range(2)]
    assert torch.equal(torch.cat(halves), whole)
    assert torch.equal(torch.cat(accumulated), whole)


def test_other_seeds_and_steps_are_other_noise():
    draws = [Noise.at(seed, step, n=1).normal(1).item() for seed in range(10) for step in range(-1, 9)]
    assert len(set(draws)) == 100


def test_mix_scatters():
    assert len({mix(a, b) for a in range(-20, 20) for b in range(-20, 20)}) == 1600
    assert all(0 <= mix(a) < 2**63 for a in range(100))


# --- what was asked for ---------------------------------------------------------------------------


def test_null_asks_for_no_text_and_no_label_and_keeps_the_rest():
    condition = asked()
    null = condition.null()
    assert not any(part.any() for part in null.text)
    assert null.label.tolist() == [NO_LABEL] * 3
    assert torch.equal(null.known, condition.known)
    assert torch.equal(condition.null("label").text.tokens, condition.text.tokens)


def test_a_null_of_what_is_absent_is_absent():
    assert Condition().null().text is None


def test_drop_at_one_is_null_and_at_zero_nothing():
    condition = asked()
    assert equal(condition.drop({"text": 1.0}, Noise([1, 2, 3])).text, condition.null().text)
    assert equal(condition.drop({"text": 0.0}, Noise([1, 2, 3])).text, condition.text)


def test_fields_are_dropped_each_at_its_own_rate():
    n = 4000
    dropped = asked(n).drop({"text": 0.1, "label": 0.3}, Noise(range(n)))
    gone_text, gone_label = ~dropped.text.mask.any(1), dropped.label == NO_LABEL
    assert abs(gone_text.float().mean() - 0.1) < 0.02
    assert abs(gone_label.float().mean() - 0.3) < 0.03
    assert abs((gone_text & gone_label).float().mean() - 0.03) < 0.01  # independent of each other
    assert torch.equal(gone_text, ~dropped.text.pooled.any(1))


def test_what_is_dropped_does_not_depend_on_what_is_there():
    noise = [Noise([4, 5]), Noise([4, 5])]
    asked(2).drop({"text": 0.5, "label": 0.5}, noise[0])
    Condition().drop({"text": 0.5, "label": 0.5}, noise[1])
    assert torch.equal(noise[0].normal(2), noise[1].normal(2))


def test_rows_and_repeat():
    condition = asked()
    assert condition.rows([2, 0]).label.tolist() == [2, 0]
    assert torch.equal(condition.rows(slice(1, 2)).text.tokens, condition.text.tokens[1:2])
    assert condition.repeat(2).label.tolist() == [0, 0, 1, 1, 2, 2]
    assert condition.repeat(2).extra["time"].tolist() == [0, 0, 1, 1, 2, 2]


def test_cat_pads_shorter_sentences_with_masked_tokens():
    both = Condition.cat([asked(2, n=2), asked(1, n=4)])
    assert both.text.tokens.shape == (3, 4, 4)
    assert both.text.mask.sum(1).tolist() == [2, 2, 4]
    assert not both.text.tokens[~both.text.mask].any()
    assert both.label.tolist() == [0, 1, 0]


def test_cat_undoes_rows():
    condition = asked()
    assert equal(Condition.cat([condition.rows([i]) for i in range(3)]).text, condition.text)
