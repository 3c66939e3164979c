import math

import torch
import torch.nn.functional as F

from diorama.critics.soft_masks import dice, focal


def test_without_focus_it_is_half_the_cross_entropy():
    logits, truth = torch.randn(3, 4, 5), (torch.rand(3, 4, 5) < 0.5).float()
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean((1, 2))
    assert torch.allclose(focal(logits, truth, alpha=0.5, gamma=0.0), entropy / 2)


def test_what_is_easy_counts_by_the_square_of_its_error():
    logits = torch.full((1, 1), math.log(9.0))  # a probability of 0.9
    assert torch.allclose(focal(logits, torch.ones(1, 1)), torch.tensor(0.25 * 0.01 * -math.log(0.9)), rtol=1e-4)
    assert torch.allclose(focal(logits, torch.zeros(1, 1)), torch.tensor(0.75 * 0.81 * -math.log(0.1)), rtol=1e-4)


def test_dice_of_hard_masks_is_counted_by_hand():
    truth, mask = torch.zeros(2, 3), torch.zeros(2, 3)
    truth[0], mask[:, 0] = 1, 1  # three and two pixels, one in common
    assert torch.allclose(dice(200 * mask - 100, truth), torch.tensor(1 - 3 / 6))
    assert torch.allclose(dice(200 * truth - 100, truth), torch.tensor(0.0), atol=1e-6)
