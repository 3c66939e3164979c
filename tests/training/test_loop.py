import json
import os
import signal
from dataclasses import replace

import pytest
import tiny
import torch
from torch import nn

from diorama.errors import UserError
from diorama.training import loop
from diorama.training.checkpoint import checkpoints
from diorama.training.loop import Phase, fit
from diorama.training.plan import Plan
from diorama.types import Batch

PLAN = Plan(steps=12, lr=0.01, warmup=2, ema=0.9, log_every=1, sample_every=5, device="cpu", dtype="float32")


class Stop(Exception):
    pass


def stop_after(step):
    def on_step(told):
        if told.index + 1 == step:
            raise Stop

    return on_step


def test_the_loss_falls():
    losses = fit(tiny.Toy(dropout=0), tiny.ToyBatches(16), replace(PLAN, steps=200)).losses
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])


@pytest.mark.parametrize("at", [1, 5, 11])
def test_stopped_and_resumed_is_uninterrupted(tmp_path, at):
    whole, halves = tiny.Toy(), tiny.Toy()
    history = fit(whole, tiny.ToyBatches(), PLAN, tmp_path / "whole", held_out=tiny.ToyBatches())
    with pytest.raises(Stop):
        fit(tiny.Toy(), tiny.ToyBatches(), replace(PLAN, save_minutes=0), tmp_path / "halves", on_step=stop_after(at))
    torch.manual_seed(at)  # nothing outside may matter
    again = fit(halves, tiny.ToyBatches(), PLAN, tmp_path / "halves", held_out=tiny.ToyBatches())
    assert torch.equal(tiny.weights(halves), tiny.weights(whole))
    assert again.losses == history.losses
    newest = [checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("whole", "halves")]
    for name in ("model", "ema", "optimizer-0"):
        assert len({(path / f"{name}.safetensors").read_bytes() for path in newest}) == 1


class Asked(tiny.ToyBatches):
    """Its process is told to end while the batch of a step is made: that many times."""

    def __init__(self, number, step, times=1):
        super().__init__()
        self.number, self.step, self.times = number, step, times

    def __call__(self, step, rank=0, world=1):
        for _ in range(self.times * (step == self.step)):
            os.kill(os.getpid(), self.number)
        return super().__call__(step, rank, world)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_end_it_saves_the_step_it_is_in(tmp_path, number):
    whole, halves, before = tiny.Toy(), tiny.Toy(), signal.getsignal(number)
    fit(whole, tiny.ToyBatches(), PLAN)
    with pytest.raises(KeyboardInterrupt, match="^step 5 of 12 is saved"):
        fit(tiny.Toy(), Asked(number, 4), PLAN, tmp_path)
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-00000005"]
    assert signal.getsignal(number) == before
    fit(halves, tiny.ToyBatches(), PLAN, tmp_path)
    assert torch.equal(tiny.weights(halves), tiny.weights(whole))


def test_asked_to_end_in_its_last_step_it_is_done(tmp_path):
    assert len(fit(tiny.Toy(), Asked(signal.SIGINT, 11), PLAN, tmp_path).losses) == 12


@pytest.mark.parametrize(("times", "out"), [(2, "run"), (1, None)])
def test_asked_twice_or_with_nothing_to_save_it_ends_at_once(tmp_path, times, out):
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(tiny.Toy(), Asked(signal.SIGINT, 4, times), PLAN, out and tmp_path / out)
    assert str(caught.value) == ""
    assert not checkpoints(tmp_path / "run" / "checkpoints")


def test_a_signal_that_is_ignored_stays_so(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert len(fit(tiny.Toy(), Asked(signal.SIGINT, 4), PLAN, tmp_path).losses) == 12
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_finished_run_is_only_loaded(tmp_path):
    first, second, told = tiny.Toy(), tiny.Toy(), []
    fit(first, tiny.ToyBatches(), PLAN, tmp_path)
    history = fit(second, tiny.ToyBatches(), PLAN, tmp_path, on_step=told.append)
    assert not told
    assert len(history.losses) == 12
    assert torch.equal(tiny.weights(first), tiny.weights(second))


def test_the_log_has_every_step_once_after_a_resume(tmp_path):
    fit(tiny.Toy(), tiny.ToyBatches(), replace(PLAN, steps=4), tmp_path)
    with open(tmp_path / "log.jsonl", "a") as log:  # as a process leaves it that was killed before its next checkpoint
        log.write('{"step": 5, "loss": 9.0}\n{"step": 6, "lo')
    fit(tiny.Toy(), tiny.ToyBatches(), PLAN, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert lines[4]["loss"] != 9.0


def test_the_log_is_thinned():
    history = fit(tiny.Toy(), tiny.ToyBatches(), replace(PLAN, log_every=5))
    assert [entry["step"] for entry in history.entries] == [5, 10, 12]


def test_it_leaves_the_average_in_place_and_in_eval():
    toy, seen = tiny.Toy(), []
    fit(toy, tiny.ToyBatches(), PLAN, preview=lambda step: seen.append(tiny.weights(toy)))
    assert torch.equal(seen[-1], tiny.weights(toy))
    assert len(seen) == 3  # at 5, at 10 and at the end
    assert not toy.training


def test_looking_changes_nothing():
    plain, watched = tiny.Toy(), tiny.Toy()
    fit(plain, tiny.ToyBatches(), replace(PLAN, sample_every=1000))
    fit(watched, tiny.ToyBatches(), replace(PLAN, sample_every=1), held_out=tiny.ToyBatches(), preview=lambda step: torch.rand(3))
    assert torch.equal(tiny.weights(plain), tiny.weights(watched))


def test_held_out_loss_is_without_dropout_and_at_fixed_noise():
    fixed = replace(PLAN, lr=0.0, weight_decay=0.0)
    history = fit(tiny.Toy(dropout=0.9), tiny.ToyBatches(), fixed, held_out=tiny.ToyBatches())
    assert len({entry["held_out_loss"] for entry in history.entries if "held_out_loss" in entry}) == 1


def test_accumulated_batches_are_one_larger_batch():
    large, small = tiny.Toy(dropout=0), tiny.Toy(dropout=0)
    losses = fit(large, tiny.ToyBatches(8), PLAN).losses
    accumulated = fit(small, tiny.ToyBatches(2), replace(PLAN, accumulate=4)).losses
    assert torch.allclose(torch.tensor(accumulated), torch.tensor(losses), rtol=1e-5)
    assert torch.allclose(tiny.weights(small), tiny.weights(large), atol=1e-5)


def test_a_step_that_is_not_finite_is_skipped_and_counted():
    toy = tiny.Toy(fail=(2, 3, 7))
    history = fit(toy, tiny.ToyBatches(), replace(PLAN, patience=3))
    assert history.skipped == 3
    assert len(history.losses) == 9
    assert tiny.weights(toy).isfinite().all()


def test_a_skipped_step_leaves_the_weights_as_they_were():
    toy, before = tiny.Toy(fail=(0,)), tiny.weights(tiny.Toy())
    fit(toy, tiny.ToyBatches(), replace(PLAN, steps=1))
    assert torch.equal(tiny.weights(toy), before)


def test_a_loss_that_stays_not_finite_ends_the_run():
    with pytest.raises(UserError, match="not finite for 3 steps in a row .step 6.: lower --lr") as caught:
        fit(tiny.Toy(fail=(4, 5, 6)), tiny.ToyBatches(), replace(PLAN, patience=3))
    assert "\n" not in str(caught.value)


def test_gradients_are_clipped():
    free, held = tiny.Toy(), tiny.Toy()
    entries = fit(free, tiny.ToyBatches(), replace(PLAN, clip=0.0)).entries
    fit(held, tiny.ToyBatches(), replace(PLAN, clip=max(e["gradient_norm"] for e in entries) + 1))
    assert torch.equal(tiny.weights(free), tiny.weights(held))  # 0 is no clipping, and so is more than there ever is


def test_torchs_own_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(MADE, tiny.ToyBatches(), PLAN)
    assert torch.equal(torch.rand(3), expected)


MADE = tiny.Toy()


def test_another_seed_is_refused(tmp_path):
    fit(tiny.Toy(), tiny.ToyBatches(), PLAN, tmp_path)
    with pytest.raises(UserError, match="trained with seed 0, not 1: use that seed or another --out"):
        fit(tiny.Toy(), tiny.ToyBatches(), replace(PLAN, seed=1), tmp_path)


def test_a_broken_newest_checkpoint_is_refused(tmp_path):
    fit(tiny.Toy(), tiny.ToyBatches(), replace(PLAN, save_minutes=0), tmp_path)
    newest = checkpoints(tmp_path / "checkpoints")[-1]
    (newest / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="delete it to resume from the one before"):
        fit(tiny.Toy(), tiny.ToyBatches(), PLAN, tmp_path)


class Duel(nn.Module):
    """Two phases, each of which pushes gradients through the other's parameters."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
        self.told = []

    def phases(self):
        loss = lambda batch, noise: (batch.image * self.a * self.b).sum(1)  # noqa: E731
        return [Phase("one", [self.a], loss), Phase("two", [self.b], lambda batch, noise: -loss(batch, noise))]

    def after_backward(self, step, optimizers):
        self.told.append((step, len(optimizers), self.a.grad is not None))

    def forward(self, phase, batch, noise):
        return self.phases()[phase].loss(batch, noise)


def test_each_phase_has_its_own_gradient():
    duel = Duel()
    ones = lambda step, rank, world: Batch(torch.ones(2, 3))  # noqa: E731
    history = fit(duel, ones, replace(PLAN, steps=1, ema=0.0, clip=0.0))
    assert history.entries[0]["gradient_norm"] == pytest.approx(3**0.5)
    assert history.entries[0]["gradient_norm/two"] == pytest.approx(3**0.5 * 0.995, rel=1e-2)  # after the first phase moved
    assert (history.entries[0]["loss"], history.entries[0]["loss/two"]) == (3, pytest.approx(-3, rel=0.02))
    assert duel.told == [(0, 2, True), (0, 2, True)]


class Rates(nn.Module):
    """Two numbers that want to fall, one a tenth as fast."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def phases(self):
        return [Phase("loss", [self.a, self.b], self.loss, [{"scale": 1.0}, {"scale": 0.1, "eps": 1e-15}])]

    def loss(self, batch, noise):
        return (self.a + self.b).expand(len(batch))

    def forward(self, phase, batch, noise):
        return self.loss(batch, noise)

    def after_backward(self, step, optimizers):
        pass


def test_a_parameter_may_have_its_own_rate():
    """Adam's first step is as long as its rate."""
    system = Rates()
    fit(system, tiny.ToyBatches(), replace(PLAN, steps=1, warmup=0, ema=0.0, weight_decay=0.0))
    torch.testing.assert_close(system.a.detach(), torch.tensor(-0.01))
    torch.testing.assert_close(system.b.detach(), torch.tensor(-0.001))


def test_bfloat16_is_autocast_around_the_loss_alone(monkeypatch):
    monkeypatch.setattr("diorama.networks.precision.has_bfloat16_units", lambda: True)
    toy, seen = tiny.Toy(), []
    toy.net[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    fit(toy, tiny.ToyBatches(), replace(PLAN, steps=2, dtype="bfloat16"), held_out=tiny.ToyBatches())
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in toy.parameters()} == {torch.float32}
    assert "forward" not in vars(toy)  # nothing stays wrapped


def test_two_runs_of_one_process_may_stand_on_different_ground(monkeypatch):
    """accelerate keeps its first run's settings for ever, unless told otherwise."""
    monkeypatch.setattr("diorama.networks.precision.has_bfloat16_units", lambda: True)
    expected, after = tiny.Toy(), tiny.Toy()
    fit(expected, tiny.ToyBatches(), PLAN)
    fit(tiny.Toy(), tiny.ToyBatches(), replace(PLAN, steps=1, dtype="bfloat16"))
    fit(tiny.Toy(), tiny.ToyBatches(), replace(PLAN, steps=1, device="auto"))
    fit(after, tiny.ToyBatches(), PLAN)
    assert torch.equal(tiny.weights(after), tiny.weights(expected))


def test_tensorboard_gets_every_logged_number(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(tiny.Toy(), tiny.ToyBatches(), replace(PLAN, steps=4), tmp_path, trackers=["tensorboard"])
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [scalar.step for scalar in events.Scalars("loss")] == [1, 2, 3, 4]


def test_a_tracker_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(UserError, match="pip install tensorboard"):
        fit(tiny.Toy(), tiny.ToyBatches(), PLAN, trackers=["tensorboard"])


def test_the_main_process_is_the_first():
    with loop.main_first(PLAN) as main:
        assert main
