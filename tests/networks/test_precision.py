import pytest
import torch

from diorama.errors import UserError
from diorama.networks import precision
from diorama.networks.precision import ground, processor_kind, use_cores


@pytest.fixture(params=[True, False], ids=["units", "no units"])
def units(request, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda: request.param)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return request.param


def test_bfloat16_where_the_processor_multiplies_it(units):
    assert ground() == ground("cpu")
    assert ground().dtype == (torch.bfloat16 if units else torch.float32)


def test_float32_can_always_be_had(units):
    assert ground(dtype="float32").dtype_name == "float32"


def test_bfloat16_without_units_is_refused(units):
    if units:
        assert ground(dtype="bfloat16").dtype == torch.bfloat16
    else:
        with pytest.raises(UserError, match="use --dtype float32"):
            ground(dtype="bfloat16")


def test_autocast_only_below_float32(units):
    with ground().autocast():
        assert torch.is_autocast_enabled("cpu") == units


def test_a_gpu_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    chosen = ground()
    assert (chosen.device.type, chosen.dtype) == ("cuda", torch.bfloat16)


@pytest.mark.parametrize(
    ("device", "dtype", "line"), [("auto", "float64", "use auto, float32 or bfloat16"), ("tpu9", "auto", "use auto, cpu or cuda")]
)
def test_what_cannot_be_had_is_told_in_one_line(device, dtype, line):
    with pytest.raises(UserError, match=line) as caught:
        ground(device, dtype)
    assert "\n" not in str(caught.value)


def test_the_same_machine_always_decides_the_same():
    assert ground() == ground()
    assert processor_kind() == processor_kind()


def test_cores():
    before = torch.get_num_threads()
    try:
        assert use_cores(1) == 1
        assert use_cores() >= 1
    finally:
        torch.set_num_threads(before)
