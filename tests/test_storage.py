import os
import resource

import pytest
import torch
from safetensors.torch import load_file

from diorama.errors import UserError
from diorama.storage import quantise, read_metadata, read_weights, write_weights


def some_state():
    torch.manual_seed(0)
    matrix = torch.randn(6, 10)
    return {
        "matrix": matrix,
        "kernel": torch.randn(4, 3, 5, 5),
        "bias": torch.randn(6),
        "temperature": torch.tensor(0.07),
        "steps": torch.arange(5),
        "flags": torch.tensor([True, False]),
        "bytes": torch.tensor([[-128, 127]], dtype=torch.int8),
        "none": torch.zeros(0, 3),
        "tied": matrix,
        "turned": matrix.T,
    }


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
def test_names_shapes_and_kinds_return(tmp_path, storage):
    state = some_state()
    write_weights(tmp_path / "w.safetensors", state, storage)
    read = read_weights(tmp_path / "w.safetensors")
    assert read.keys() == state.keys()
    for name, tensor in state.items():
        assert read[name].shape == tensor.shape
        assert read[name].dtype == tensor.dtype
        if not tensor.is_floating_point() or tensor.ndim < 2:
            assert torch.equal(read[name], tensor)


def test_float32_returns_bit_for_bit(tmp_path):
    state = some_state()
    write_weights(tmp_path / "w", state)
    read = read_weights(tmp_path / "w")
    assert all(torch.equal(read[name], state[name]) for name in state)


def test_bfloat16_is_torchs_own_rounding(tmp_path):
    state = some_state()
    write_weights(tmp_path / "w", state, "bfloat16")
    assert torch.equal(read_weights(tmp_path / "w")["kernel"], state["kernel"].bfloat16().float())


def test_int8_is_within_half_a_level_of_each_channel(tmp_path):
    state = some_state()
    state["kernel"] *= torch.tensor([1e-6, 1.0, 1e3, 0.0])[:, None, None, None]
    write_weights(tmp_path / "w", state, "int8")
    read = read_weights(tmp_path / "w")
    for name in ("matrix", "kernel"):
        largest = state[name].flatten(1).abs().amax(1)
        error = (read[name] - state[name]).flatten(1).abs().amax(1)
        assert (error <= largest / 254 * 1.0001).all()


def test_int8_is_stored_beside_its_scales_and_is_read_back_exactly(tmp_path):
    weight = torch.randint(-127, 128, (8, 16)).float()
    weight[:, 0] = 127
    write_weights(tmp_path / "w", {"a": weight * 0.25}, "int8")
    stored = load_file(tmp_path / "w")
    assert torch.equal(stored["a"], weight.to(torch.int8))
    assert torch.equal(stored["a.scale"], torch.full((8,), 0.25))
    assert torch.equal(read_weights(tmp_path / "w")["a"], weight * 0.25)


def test_quantising_what_was_quantised_changes_nothing():
    torch.manual_seed(0)
    weight, scale = quantise(torch.randn(32, 64))
    again, same = quantise(weight * scale[:, None])
    assert torch.equal(again, weight)
    assert torch.allclose(same, scale)


def test_half_and_double_are_widened_and_narrowed_to_float32(tmp_path):
    write_weights(tmp_path / "w", {"half": torch.ones(2, 2).half(), "double": torch.ones(2, 2).double()})
    assert {tensor.dtype for tensor in read_weights(tmp_path / "w").values()} == {torch.float32}


def test_an_int8_file_is_a_quarter_of_a_float32_one(tmp_path):
    state = {"a": torch.randn(512, 512)}
    write_weights(tmp_path / "w32", state)
    write_weights(tmp_path / "w8", state, "int8")
    assert os.path.getsize(tmp_path / "w8") < 0.26 * os.path.getsize(tmp_path / "w32")


def test_metadata_returns(tmp_path):
    write_weights(tmp_path / "w", {"a": torch.ones(2, 2)}, "int8", {"seed": "7"})
    assert read_metadata(tmp_path / "w") == {"format": "pt", "storage": "int8", "seed": "7"}


def test_changing_what_was_read_does_not_change_the_file(tmp_path):
    write_weights(tmp_path / "w", {"a": torch.ones(3)})
    read_weights(tmp_path / "w")["a"].zero_()
    assert torch.equal(read_weights(tmp_path / "w")["a"], torch.ones(3))


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_a_truncated_file_is_told_in_one_line(tmp_path, keep):
    path = tmp_path / "w.safetensors"
    write_weights(path, some_state())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="is damaged or truncated: fetch or train it again") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


def test_what_is_not_a_weights_file_is_told_in_one_line(tmp_path):
    (tmp_path / "w").write_bytes(os.urandom(1000))
    with pytest.raises(UserError, match="damaged"):
        read_weights(tmp_path / "w")
    with pytest.raises(UserError, match="is not there"):
        read_weights(tmp_path / "none")
    with pytest.raises(UserError, match="is not there"):
        read_weights(tmp_path)


def test_wrong_requests_are_told_in_one_line(tmp_path):
    with pytest.raises(UserError, match="use float32, bfloat16, int8"):
        write_weights(tmp_path / "w", {}, "int4")
    with pytest.raises(UserError, match="weight a is not finite"):
        write_weights(tmp_path / "w", {"a": torch.full((2, 2), torch.nan)}, "int8")
    with pytest.raises(UserError, match="create the folder first"):
        write_weights(tmp_path / "none" / "w", {})
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "w"
    write_weights(path, {"a": torch.ones(3)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(UserError, match="cannot write"):
            write_weights(path, {"a": torch.ones(1000, 1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(read_weights(path)["a"], torch.ones(3))
    assert os.listdir(tmp_path) == ["w"]
