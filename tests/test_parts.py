import json

import pytest
import tiny
import torch

from diorama.codecs.conv import ConvCodec
from diorama.conditions.text import SentenceEncoder
from diorama.errors import UserError
from diorama.networks.unet import UNet

PARTS = {"codec": (ConvCodec, tiny.codec), "text": (SentenceEncoder, tiny.sentence_encoder), "network": (UNet, tiny.unet)}


@pytest.fixture(params=PARTS)
def part(request):
    return PARTS[request.param]


def edit(path, **changes):
    path.write_text(json.dumps({k: v for k, v in (json.loads(path.read_text()) | changes).items() if v is not ...}))


def test_saved_and_loaded_it_is_the_same(part, tmp_path):
    kind, make = part
    made = make()
    made.save_pretrained(tmp_path / "part")
    again = kind.from_pretrained(tmp_path / "part")
    assert again.config == made.config
    assert torch.equal(tiny.weights(again), tiny.weights(made))


@pytest.mark.parametrize("storage", ["bfloat16", "int8"])
def test_stored_narrower_it_is_nearly_the_same(part, tmp_path, storage):
    kind, make = part
    made = make()
    made.save_pretrained(tmp_path / "part", storage)
    again = kind.from_pretrained(tmp_path / "part")
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert (tiny.weights(again) - tiny.weights(made)).abs().max() < 0.01


def test_a_loaded_part_can_be_trained(tmp_path):
    tiny.unet().save_pretrained(tmp_path / "part")
    assert all(p.requires_grad and p.is_leaf for p in UNet.from_pretrained(tmp_path / "part").parameters())


def test_saving_again_replaces_and_leaves_nothing_else(part, tmp_path):
    _, make = part
    made = make()
    made.save_pretrained(tmp_path / "part")
    made.save_pretrained(tmp_path / "part", "int8")
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


def test_another_folder_is_not_replaced(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UserError, match="holds other files"):
        tiny.codec().save_pretrained(tmp_path)
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_truncated_or_missing_file_is_told_in_one_line(part, tmp_path, name):
    kind, make = part
    make().save_pretrained(tmp_path / "part")
    path = tmp_path / "part" / name
    for damage in (lambda: path.write_bytes(path.read_bytes()[:-30]), path.unlink):
        damage()
        with pytest.raises(UserError, match=name) as caught:
            kind.from_pretrained(tmp_path / "part")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"format_version": 2}, r"format_version 2, this diorama reads up to 1: update diorama"),
        ({"format_version": "new"}, "update diorama"),
        ({"colour": 1}, "does not describe a UNet .unknown field colour."),
        ({"channels": ...}, "does not describe a UNet .a field is missing."),
        ({"widths": [16, 24]}, "does not fit config.json"),
    ],
)
def test_a_config_that_does_not_fit_is_told_in_one_line(tmp_path, change, line):
    tiny.unet().save_pretrained(tmp_path / "part")
    edit(tmp_path / "part" / "config.json", **change)
    with pytest.raises(UserError, match=line) as caught:
        UNet.from_pretrained(tmp_path / "part")
    assert "\n" not in str(caught.value)


def test_a_config_of_before_there_were_versions_is_read(tmp_path):
    tiny.unet().save_pretrained(tmp_path / "part")
    edit(tmp_path / "part" / "config.json", format_version=...)
    assert UNet.from_pretrained(tmp_path / "part").config == tiny.UNET
