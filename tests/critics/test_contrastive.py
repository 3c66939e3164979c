import math

import pytest
import torch
import torch.nn.functional as F

from diorama.critics.contrastive import accuracy, clip_score, cosine, preference, r_precision, ranks, top
from diorama.critics.statistics import ratio
from diorama.errors import UserError


def test_ranks_are_known_where_the_angles_are():
    angles = torch.tensor([[0.1, 0.2, 0.3], [0.2, 0.1, 0.3], [0.3, 0.2, 0.1]])
    candidates = torch.stack([angles.cos(), angles.sin()], -1)
    pictures = torch.tensor([[1.0, 0.0]]).expand(3, 2)
    found = ranks(pictures, candidates)
    assert found.tolist() == [0, 1, 2]
    assert (top(found).value, top(found, 2).value, top(found, 3).value) == pytest.approx((1 / 3, 2 / 3, 1))


def test_a_scorer_that_cannot_tell_is_never_right():
    same = F.normalize(torch.ones(5, 10, 4), dim=-1)
    assert top(ranks(same[:, 0], same)).value == 0


def test_guessing_is_right_one_time_in_m():
    g = torch.Generator().manual_seed(0)
    score = top(ranks(torch.randn(4000, 8, generator=g), torch.randn(4000, 10, 8, generator=g)))
    assert abs(score.value - 0.1) < 4 * score.stderr
    assert score.stderr == pytest.approx((0.1 * 0.9 / 4000) ** 0.5, rel=0.1)


def test_none_right_still_has_an_error():
    assert top(torch.ones(50)).stderr > 0


def test_r_precision_counts_the_relevant_among_the_first_r():
    similarity = torch.tensor([[0.9, 0.8, 0.1, 0.0], [0.1, 0.9, 0.8, 0.7]])
    relevant = torch.tensor([[True, False, True, False], [False, True, True, True]])
    assert r_precision(similarity, relevant).value == pytest.approx((1 / 2 + 1) / 2)


def test_labels():
    assert accuracy(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 0, 4])).value == 0.75


def test_the_ratio_of_equal_outcomes_is_one_without_error():
    hits = torch.tensor([1, 0, 1, 1])
    assert ratio(hits, hits) == ratio(hits, hits)
    assert (ratio(hits, hits).value, ratio(hits, hits).stderr) == (1, 0)


def test_the_error_of_a_ratio_is_that_of_many_repetitions():
    g = torch.Generator().manual_seed(0)
    draws = [(torch.rand(400, generator=g) < 0.5, torch.rand(400, generator=g) < 0.8) for _ in range(300)]
    scores = [ratio(a, b) for a, b in draws]
    spread = torch.tensor([s.value for s in scores]).std()
    assert scores[0].stderr == pytest.approx(float(spread), rel=0.15)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(UserError, match="too few"):
        top(torch.zeros(0))
    with pytest.raises(UserError, match="nothing to choose"):
        ranks(torch.ones(3, 2), torch.ones(3, 1, 2))
    with pytest.raises(UserError, match="2 of 3 pictures are NaN or infinite"):
        ranks(torch.tensor([[1.0, 0.0], [math.nan, 0.0], [math.inf, 0.0]]), torch.ones(3, 4, 2))
    with pytest.raises(UserError, match="no value"):
        ratio(torch.ones(3), torch.zeros(3))


def test_the_score_of_known_angles():
    pictures = torch.tensor([[1.0, 0.0]]).expand(3, 2)
    angles = torch.tensor([0.0, math.pi / 3, math.pi])
    texts = 5 * torch.stack([angles.cos(), angles.sin()], 1)  # lengths do not matter
    assert cosine(pictures, texts).tolist() == pytest.approx([1, 0.5, -1])
    assert clip_score(pictures, texts).tolist() == pytest.approx([100, 50, 0])
    score = clip_score.score(clip_score(pictures, texts))
    assert (score.value, score.n, score.higher_is_better) == (pytest.approx(50), 3, True)


def test_a_tie_of_rewards_is_half_right():
    assert preference(torch.tensor([3.0, 1.0, 2.0, 0.0]), torch.tensor([1.0, 1.0, 5.0, -1.0])).value == 2.5 / 4
    with pytest.raises(UserError, match="1 of 2 pairs are NaN"):
        preference(torch.tensor([1.0, math.nan]), torch.zeros(2))


def test_retrieval_agrees_with_torchmetrics():
    reference = pytest.importorskip("torchmetrics.functional.retrieval")
    g = torch.Generator().manual_seed(0)
    similarity, relevant = torch.randn(20, 30, generator=g), torch.rand(20, 30, generator=g) < 0.2
    theirs = [reference.retrieval_r_precision(s, r).item() for s, r in zip(similarity, relevant, strict=True)]
    assert r_precision(similarity, relevant).value == pytest.approx(sum(theirs) / 20)
    pictures, candidates = torch.randn(20, 8, generator=g), torch.randn(20, 30, 8, generator=g)
    fits = torch.einsum("n d, n m d -> n m", pictures, candidates)
    first = torch.arange(30) == 0
    for k in (1, 5):
        hits = [reference.retrieval_hit_rate(row, first, top_k=k).item() for row in fits]
        assert top(ranks(pictures, candidates), k).value == pytest.approx(sum(hits) / 20)


class Vectors:
    """A clip of torchmetrics' kind whose pictures and sentences are vectors already; its processor too."""

    config = None

    def __call__(self, images=None, text=None, **how):
        if images is not None:
            return {"pixel_values": torch.stack(images)}
        ids = torch.tensor([[float(number) for number in words.split()] for words in text])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def to(self, device):
        return self

    def get_image_features(self, pixels):
        return pixels.flatten(1)

    def get_text_features(self, ids, mask):
        return ids


def test_the_score_agrees_with_torchmetrics():
    pytest.importorskip("transformers")  # without which torchmetrics has no such measure
    reference = pytest.importorskip("torchmetrics.functional.multimodal")
    g = torch.Generator().manual_seed(0)
    pictures, texts = torch.randn(20, 3, 1, 2, generator=g), torch.randn(20, 6, generator=g)
    words = [" ".join(map(str, row)) for row in texts.tolist()]
    theirs = [
        reference.clip_score(x, said, lambda: (Vectors(), Vectors())).item() for x, said in zip(pictures, words, strict=True)
    ]
    ours = clip_score(pictures.flatten(1), texts)
    assert ours.tolist() == pytest.approx(theirs, abs=1e-4)
    assert 0 < (ours == 0).sum() < 20  # of opposite vectors too
