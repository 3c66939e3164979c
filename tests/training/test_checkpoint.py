import os

import pytest
import tiny
import torch

from diorama.errors import UserError
from diorama.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint, trained
from diorama.training.ema import Ema
from diorama.training.loop import fit
from diorama.training.plan import Plan


def state_of(toy):
    optimizer = torch.optim.AdamW(toy.net.parameters(), fused=True)
    return toy, Ema(toy, 0.9), [optimizer]


def stepped():
    """A toy, its average and its optimizer after two steps."""
    toy, ema, (optimizer,) = state_of(tiny.Toy())
    for _ in range(2):
        toy.net(torch.ones(4, 3)).square().mean().backward()
        optimizer.step()
        ema.update()
    return toy, ema, [optimizer]


def test_everything_returns_bit_for_bit(tmp_path):
    toy, ema, optimizers = stepped()
    path = save_checkpoint(tmp_path, 2, toy, ema, optimizers, 2, seed=7)
    again, average, others = state_of(tiny.Toy())
    state = load_checkpoint(path, again, average, others)
    assert (state["step"], state["seed"], average.updates) == (2, 7, 2)
    assert torch.equal(tiny.weights(again), tiny.weights(toy))
    assert all(torch.equal(average.shadow[name], ema.shadow[name]) for name in ema.shadow)
    mine, its = optimizers[0].state_dict(), others[0].state_dict()
    assert all(torch.equal(mine["state"][i][k], its["state"][i][k]) for i in mine["state"] for k in mine["state"][i])
    assert mine["param_groups"] == its["param_groups"]


def test_what_is_frozen_is_not_saved():
    assert not [name for name in trained(tiny.Toy()) if name.startswith("frozen")]


def test_the_newest_are_kept(tmp_path):
    toy = stepped()
    for step in (1, 2, 10, 100):
        save_checkpoint(tmp_path, step, *toy, 2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000010", "step-00000100"]
    assert len(os.listdir(tmp_path)) == 2


def test_what_a_killed_process_left_is_no_checkpoint_and_goes(tmp_path):
    toy = stepped()
    newest = save_checkpoint(tmp_path, 1, *toy, 2)
    (tmp_path / ".step-00000002.tmp-77-0").mkdir()
    (tmp_path / "step-00000003").mkdir()  # no state.json
    assert checkpoints(tmp_path) == [newest]
    save_checkpoint(tmp_path, 4, *toy, 2)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["model.safetensors", "ema.safetensors", "optimizer-0.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_told_in_one_line(tmp_path, name):
    path = save_checkpoint(tmp_path, 1, *stepped(), 2)
    (path / name).write_bytes((path / name).read_bytes()[:-20])
    with pytest.raises(UserError, match=r"checkpoint .* cannot be read .*: delete it to resume from the one before") as caught:
        load_checkpoint(path, *stepped())
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_system_changes_nothing(tmp_path):
    toy, ema, optimizers = stepped()
    path = save_checkpoint(tmp_path, 1, toy, ema, optimizers, 2)
    toy.net[0] = torch.nn.Linear(3, 8)
    with pytest.raises(UserError, match=r"another system or preset \(first differing weight: net.0.bias\): use another --out"):
        load_checkpoint(path, toy, ema, optimizers)


def test_there_is_no_pickle(tmp_path):
    fit(tiny.Toy(), tiny.ToyBatches(), Plan(steps=2, device="cpu", save_minutes=0), tmp_path)
    kinds = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert kinds == {".safetensors", ".json", ".jsonl"}
