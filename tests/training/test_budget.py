"""The memory model against what torch's own profiler measures of real runs, and against small sums that are known."""

import pytest
import tiny
import torch

from diorama.networks.unet import UNet, UNetConfig
from diorama.systems.images.ddpm import DDPM
from diorama.training.blank import Blank, blank
from diorama.training.budget import Autocast, Sharing, footprint
from diorama.training.loop import fit
from diorama.training.meter import Alive
from diorama.training.plan import Plan
from diorama.types import Batch, Noise

ALONE = Sharing()
SHAPE = UNetConfig(channels=3, widths=(32, 64), depth=1, attention=(False, True), heads=2, embedding=64, dropout=0.1, levels=1.0)


def ddpm(device="meta", shape=SHAPE, size=16):
    with torch.device(device):
        return DDPM(UNet(shape), size)


def of(system, n, size=16, dtype=torch.float32):
    return footprint(system, lambda n: blank(system, n, size), n, dtype)


@pytest.fixture(scope="module")
def eight():
    return of(ddpm(), 8)


def measured(run):
    """The most bytes that torch's allocator had given out at once."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = torch.tensor([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return changes.cumsum(0).max().item()


@pytest.mark.parametrize(("n", "accumulate"), [(1, 1), (12, 1), (6, 3)], ids=["weights", "activations", "accumulated"])
def test_a_real_run_takes_what_was_said(n, accumulate):
    """The loop itself with its AdamW and its average, on a processor; 15 % is what the plan promises."""

    def run():
        batch = Batch(torch.zeros(n, 4, 16, 16))
        plan = Plan(steps=2, batch=n, accumulate=accumulate, warmup=1, device="cpu", dtype="float32")
        fit(ddpm("cpu"), lambda step, rank, world: batch, plan)

    said = of(ddpm(), n).peak(n, Sharing(accumulated=accumulate > 1))
    assert measured(run) == pytest.approx(said, rel=0.15)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_so_does_one_on_an_accelerator(dtype):
    shape, n = UNetConfig(channels=3, widths=(128, 256), attention=(False, True), levels=1.0), 64
    torch.cuda.reset_peak_memory_stats()
    batch = Batch(torch.zeros(n, 4, 32, 32))
    fit(ddpm("cpu", shape, 32), lambda step, rank, world: batch, Plan(steps=3, batch=n, device="cuda", dtype=dtype))
    said = of(ddpm("meta", shape, 32), n, 32, getattr(torch, dtype)).peak(n, ALONE)
    assert torch.cuda.max_memory_allocated() == pytest.approx(said, rel=0.15)


def test_between_the_traced_sizes_all_is_linear(eight):
    five = of(ddpm(), 5)
    assert eight.peak(5, ALONE) == pytest.approx(five.peak(5, ALONE))
    assert eight.flops == pytest.approx(five.flops)


def test_the_most_that_fits_fits(eight):
    room = eight.peak(6, ALONE) + 1000
    assert eight.most(room, ALONE) == 6
    assert eight.most(sum(eight.held(ALONE).values()), ALONE) == 0


def test_what_is_held_is_known_to_the_byte(eight):
    """Float32: one number each for weight, gradient and average, two for AdamW."""
    numbers = sum(p.numel() for p in ddpm().parameters())
    assert eight.held(ALONE) == {"weights": 4 * numbers, "buckets": 0, "optimiser": 8 * numbers, "average": 4 * numbers}
    assert eight.gradients.max() == 4 * numbers
    assert eight.gradients[0] == 0


def test_each_stage_shares_one_thing_more(eight):
    held = [eight.held(Sharing(4, stage)) for stage in range(4)]
    assert [h["optimiser"] / eight.trained for h in held] == [2, 0.5, 0.5, 0.5]
    assert [h["average"] / eight.trained for h in held] == [1, 0.25, 0.25, 0.25]
    assert [h["buckets"] / eight.trained for h in held] == [1, 1, 0, 0]
    assert [h["weights"] for h in held] == [eight.trained] * 3 + [eight.trained / 4 + 2 * eight.block]
    peaks = [eight.peak(2, Sharing(4, stage)) for stage in range(3)]
    assert peaks == sorted(peaks, reverse=True)


def test_flops_and_frozen_weights_of_a_network_that_is_counted_by_hand():
    with torch.device("meta"):
        toy = tiny.Toy()
    found = footprint(toy, lambda n: Batch(torch.empty(n, 3, device="meta")), 4, torch.float32)
    forward = 2 * (3 * 16 + 16 * 3)
    assert found.flops == forward + forward + 2 * 16 * 3  # backward: every weight, and what the second layer reads
    assert (found.trained, found.frozen) == (4 * (3 * 16 + 16 + 16 * 3 + 3), 4 * (3 * 3 + 3))


# --- the instruments ------------------------------------------------------------------------------


def test_a_storage_counts_once_and_until_its_end():
    with Alive() as alive:
        x = torch.empty(10, device="meta")
        y = x.reshape(2, 5).T + 1
        x.add_(1)
        del x, y
    assert [size for _, size in alive.events] == [40, 40, -40, -40]


def test_products_are_narrow_and_norms_are_wide():
    x = torch.empty(2, 8, 4, device="meta")
    q = torch.empty(2, 1, 4, 8, device="meta", requires_grad=True)
    weight = torch.empty(8, 8, 1, device="meta", requires_grad=True)
    with Autocast(torch.bfloat16):
        y = torch.nn.functional.conv1d(x, weight)
        assert y.dtype == (q @ q.mT).dtype == torch.bfloat16
        assert torch.nn.functional.scaled_dot_product_attention(q, q, q).dtype == torch.bfloat16
        assert torch.nn.functional.silu(y).dtype == torch.bfloat16
        assert torch.nn.functional.group_norm(y, 2).dtype == y.sum().dtype == torch.float32
        y.float().sum().backward()
    assert weight.grad.dtype == torch.float32


def test_attention_stores_no_scores():
    q = torch.empty(1, 2, 512, 8, device="meta", requires_grad=True)
    mask = torch.ones(1, 1, 1, 512, dtype=torch.bool, device="meta")
    with Alive() as alive, Autocast(torch.float32):
        torch.nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=mask).sum().backward()
    assert max(size for _, size in alive.events) < 2 * 512 * 512


def test_draws_without_numbers_are_shaped_like_draws():
    for noise in (Noise(range(3)), Blank(3)):
        assert (noise.normal(2).shape, noise.uniform().shape, noise.integers(5, 4).dtype) == ((3, 2), (3,), torch.int64)
    assert len(Blank(3)) == 3
