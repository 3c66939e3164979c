import pytest
import torch

from diorama.guidance.classifier_free import classifier_free, classifier_free_logits
from diorama.processes.levels import flow
from diorama.processes.scalings import NetworkDenoiser, RectifiedFlow
from diorama.processes.solvers import euler
from diorama.types import MASK, NO_LABEL, Condition, Noise, Prediction

ASKED = Condition(label=torch.tensor([3, 5]))
X, SIGMA = torch.ones(2, 1, 2, 2), torch.tensor([0.5, 2.0])


class Labels:
    """Says the label back, whatever the noise; counts its calls."""

    sigmas = torch.tensor([0.1, 1.0])

    def __init__(self):
        self.calls = []

    def __call__(self, x, sigma, condition):
        self.calls.append(len(x))
        return condition.label.float().reshape(-1, 1, 1, 1).expand_as(x)

    def predict(self, x, sigma, condition):
        return Prediction(self(x, sigma, condition))


def test_scale_one_is_the_denoiser_itself():
    denoiser = Labels()
    assert classifier_free(denoiser, 1) is classifier_free(denoiser, 1.0) is denoiser


def test_it_goes_from_the_unasked_past_the_asked():
    guided = classifier_free(Labels(), 3.0)(X, SIGMA, ASKED)
    assert torch.equal(guided[:, 0, 0, 0], NO_LABEL + 3.0 * (torch.tensor([3.0, 5.0]) - NO_LABEL))


def test_scale_nought_asks_for_nothing():
    assert (classifier_free(Labels(), 0.0)(X, SIGMA, ASKED) == NO_LABEL).all()


def test_both_halves_are_one_call():
    denoiser = Labels()
    classifier_free(denoiser, 2.0)(X, SIGMA, ASKED)
    assert denoiser.calls == [4]


@pytest.mark.parametrize(
    "scale", [torch.tensor([2.0, 7.0]), lambda sigma: torch.where(sigma > 1, 7.0, 2.0)], ids=["per sample", "of sigma"]
)
def test_each_sample_may_have_its_own_scale(scale):
    guided = classifier_free(Labels(), scale)(X, SIGMA, ASKED)
    alone = [classifier_free(Labels(), s)(X[i : i + 1], SIGMA[i : i + 1], ASKED.rows([i])) for i, s in enumerate((2.0, 7.0))]
    assert torch.equal(guided, torch.cat(alone))


def test_a_negative_takes_the_place_of_nothing():
    guided = classifier_free(Labels(), 2.0, Condition(label=torch.tensor([1, 1])))(X, SIGMA, ASKED)
    assert guided[:, 0, 0, 0].tolist() == [1 + 2 * (3 - 1), 1 + 2 * (5 - 1)]


def test_guided_is_a_denoiser_like_any_other():
    denoiser = Labels()
    guided = classifier_free(denoiser, 2.0)
    assert guided.sigmas is denoiser.sigmas
    assert torch.equal(guided.predict(X, SIGMA, ASKED).x0, guided(X, SIGMA, ASKED))
    twice = classifier_free(guided, 1.0)
    assert euler(twice, X, ASKED, flow(3), Noise([0, 1])).shape == X.shape


def test_a_sample_is_guided_the_same_alone_and_in_a_batch():
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    denoiser = NetworkDenoiser(lambda x, c, condition: network(x) + condition.label.reshape(-1, 1, 1, 1), RectifiedFlow())
    guided = classifier_free(denoiser, 4.0)
    together = guided(X, SIGMA, ASKED)
    for i in range(2):
        assert torch.allclose(guided(X[i : i + 1], SIGMA[i : i + 1], ASKED.rows([i]))[0], together[i], atol=1e-5)


# --- on logits ------------------------------------------------------------------------------------

TOKENS = torch.tensor([[0, MASK, MASK, MASK], [1, 0, 1, MASK]])


class LabelLogits(Labels):
    """Says the label back for each of three codes."""

    def __call__(self, tokens, condition):
        self.calls.append(len(tokens))
        return condition.label.float().reshape(-1, 1, 1).expand(*tokens.shape, 3)


def test_logits_go_from_the_unasked_past_the_asked_in_one_call():
    predictor = LabelLogits()
    guided = classifier_free_logits(predictor, 3.0)(TOKENS, ASKED)
    assert guided.shape == (2, 4, 3)
    assert torch.equal(guided[:, 0, 0], NO_LABEL + 3.0 * (torch.tensor([3.0, 5.0]) - NO_LABEL))
    assert predictor.calls == [4]
    assert classifier_free_logits(predictor, 1.0) is predictor


def test_a_scale_for_logits_may_follow_the_share_still_to_come():
    guided = classifier_free_logits(LabelLogits(), lambda share: 1 + 4 * share)(TOKENS, ASKED)
    assert guided[:, 0, 0].tolist() == [-1 + (1 + 4 * 0.75) * 4, -1 + (1 + 4 * 0.25) * 6]


def test_a_negative_takes_the_place_of_nothing_for_logits_too():
    guided = classifier_free_logits(LabelLogits(), 2.0, Condition(label=torch.tensor([1, 1])))(TOKENS, ASKED)
    assert guided[:, 0, 0].tolist() == [1 + 2 * (3 - 1), 1 + 2 * (5 - 1)]
