import math

import pytest
import torch

from diorama.critics.usage import counts, perplexity, used
from diorama.errors import UserError


def test_a_codebook_in_equal_use_has_the_perplexity_of_its_size():
    codes = torch.arange(64).reshape(4, 4, 4) % 16
    observed = counts(codes, 16)
    assert perplexity(observed).value == pytest.approx(16)
    assert used(observed).value == 1


def test_half_a_codebook_at_known_rates():
    observed = counts(torch.tensor([[0, 0, 0, 1], [0, 0, 0, 1]]), 4)
    assert used(observed).value == 0.5
    assert perplexity(observed).value == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))


def test_pieces_are_the_whole():
    codes = torch.randint(8, (10, 5), generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat([counts(part, 8) for part in codes.split(3)]), counts(codes, 8))


def test_the_modes_of_a_distribution_are_codes_too():
    labels = torch.arange(90) % 9  # nine of ten modes
    assert used(counts(labels[:, None], 10)).value == pytest.approx(0.9)


def test_the_error_is_that_of_many_repetitions():
    g = torch.Generator().manual_seed(0)
    scores = [perplexity(counts((torch.rand(50, 20, generator=g) ** 2 * 16).long(), 16)) for _ in range(60)]
    assert 0.7 < sum(s.stderr for s in scores) / 60 / torch.tensor([s.value for s in scores]).std() < 1.4


def test_codes_outside_the_book_are_refused():
    with pytest.raises(UserError, match="codes 0 to 4 are not all in 0 to 3"):
        counts(torch.tensor([[0, 4]]), 4)
