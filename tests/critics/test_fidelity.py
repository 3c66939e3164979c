import pytest
import torch

from diorama.critics.fidelity import ms_ssim, perceptual, psnr, ssim
from diorama.errors import UserError


def pictures(side: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    """Two smooth pictures and noisy copies of them."""
    g = torch.Generator().manual_seed(0)
    x = torch.nn.functional.interpolate(2 * torch.rand(2, 3, 6, 6, generator=g) - 1, (side, side + 8), mode="bilinear")
    return x, (x + 0.2 * torch.randn(x.shape, generator=g)).clamp(-1, 1)


@pytest.mark.parametrize("offset", [0.02, 0.2])
def test_a_constant_offset_has_its_known_ratio(offset):
    x = torch.zeros(3, 3, 8, 8)
    assert psnr(x + offset, x).tolist() == pytest.approx([20 * torch.log10(torch.tensor(2 / offset)).item()] * 3, rel=1e-5)


def test_flat_pictures_have_the_similarity_of_their_brightness():
    x, y = torch.full((1, 3, 20, 20), 0.5), torch.full((1, 3, 20, 20), -0.25)
    assert ssim(x, y).item() == pytest.approx((2 * 0.5 * -0.25 + 4e-4) / (0.25 + 0.0625 + 4e-4), rel=1e-3)


def test_equal_pictures():
    x, _ = pictures(176)
    assert psnr(x, x).isinf().all()
    assert ssim(x, x).tolist() == [1, 1]
    assert torch.allclose(ms_ssim(x, x), torch.ones(2))
    with pytest.raises(UserError, match="2 of 2 values are NaN or infinite"):
        psnr.score(psnr(x, x))


def test_they_agree_with_torchmetrics():
    reference = pytest.importorskip("torchmetrics.functional.image")
    x, y = pictures(176)
    theirs = reference.structural_similarity_index_measure(x, y, data_range=2.0, reduction="none")
    assert torch.allclose(ssim(x, y), theirs, atol=1e-5)
    theirs = reference.multiscale_structural_similarity_index_measure(x, y, data_range=2.0, reduction="none")
    assert torch.allclose(ms_ssim(x, y), theirs, atol=1e-5)
    theirs = reference.peak_signal_noise_ratio(x, y, data_range=2.0, reduction="none", dim=(1, 2, 3))
    assert torch.allclose(psnr(x, y), theirs)


def test_a_score_says_unit_direction_error_and_what_it_stands_on():
    x, y = pictures()
    values = torch.cat([psnr.observe(x[i : i + 1], y[i : i + 1]) for i in range(2)])
    score = psnr.score(values)
    assert (score.unit, score.higher_is_better, score.n, score.features) == ("dB", True, 2, "pixels")
    assert score.value == pytest.approx(float(values.mean()))
    assert score.stderr == pytest.approx(float((values[0] - values[1]).abs() / 2))


def test_perceptual_distance_is_of_directions():
    x = torch.tensor([1.0, 0.0])[None, :, None, None].expand(1, 2, 4, 4)
    y = torch.tensor([0.0, 1.0])[None, :, None, None].expand(1, 2, 4, 4)
    assert perceptual([x, x[..., :2]], [3 * x, x[..., :2]]).item() == 0
    assert perceptual([x, x[..., :2]], [y, -x[..., :2]]).item() == 2 + 4


def test_pictures_that_do_not_fit_are_refused():
    x, _ = pictures()
    with pytest.raises(UserError, match="pictures of 2 x 3 x 48 x 56 and 2 x 3 x 40 x 56 cannot be compared"):
        psnr(x, x[..., :40, :])
    with pytest.raises(UserError, match="use 6 or more"):
        ssim(x[..., :5, :5], x[..., :5, :5])
    with pytest.raises(UserError, match="56 x 48 pixels are too few for 5 scales: use 176 or more"):
        ms_ssim(x, x)


def test_as_a_loss_ssim_is_the_same_within_its_precision():
    x, y = pictures()
    torch.testing.assert_close(ssim(x, y, exact=False), ssim(x, y), atol=1e-4, rtol=0)
