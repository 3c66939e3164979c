"""FID's Inception in a file of its own, with random weights: what is read, what is refused, and what a score says of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from diorama.apps.cli import main
from diorama.errors import UserError
from diorama.hub.features import read_inception, title
from diorama.networks.inception import FidInception


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return FidInception().state_dict()


@pytest.fixture(scope="module")
def file(state, tmp_path_factory) -> Path:
    save_file(state, path := tmp_path_factory.mktemp("weights") / "inception.safetensors")
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "made").mkdir()
    for i, value in enumerate(np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3)).astype(np.uint8)):
        Image.fromarray(value[: 20 - i]).save(tmp_path / "made" / f"{i}.png")
    return tmp_path / "made"


def fails(capsys, *arguments: object) -> str:
    assert main(["score", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


def test_the_weights_are_those_of_the_file(state, file):
    read = read_inception(file).state_dict()
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())


def test_a_file_that_does_not_count_batches_is_read(state, tmp_path):
    save_file({name: tensor for name, tensor in state.items() if "num_batches" not in name}, tmp_path / "plain.safetensors")
    read_inception(tmp_path / "plain.safetensors")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}, "(2 are missing or other, such as fc.bias)"),
        ({"AuxLogits.fc.bias": torch.zeros(1000)}, "(1 are missing or other, such as AuxLogits.fc.bias)"),
        ({"Mixed_5b.branch1x1.bn.bias": None}, "(1 are missing or other, such as Mixed_5b.branch1x1.bn.bias)"),
    ],
)
def test_other_weights_are_refused(state, tmp_path, change, said):
    other = {name: tensor for name, tensor in (state | change).items() if tensor is not None}
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(UserError) as error:
        read_inception(tmp_path / "other.safetensors")
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.slow
def test_it_scores_pictures(file, folder, capsys):
    assert main(["score", str(folder), "--reference", str(folder), "--paired", "--features", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    scores = {row["measure"]: row for row in found["scores"]}
    assert title(file).startswith("FID Inception ")
    assert (scores["diversity"]["n"], scores["diversity"]["features"]) == (3, title(file))
    assert (scores["perceptual distance"]["value"], scores["perceptual distance"]["n"]) == (0, 3)
    assert "3 pictures are too few for this measure: use 2049 or more" in scores["FID"]["why"]
    assert "use 32 or more" in scores["kernel distance (KID)"]["why"]
    assert "Fréchet distance" not in scores
    assert any("pictures of 3 sizes are each stretched to 299 x 299" in note for note in found["notes"])


def test_a_size_brings_pictures_to_it_first(file, folder, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(FidInception, "features", lambda self, x: seen.append(x.shape) or x[:, :3].flatten(1))
    assert main(["score", str(folder), "--features", str(file), "--size", "16", "--json"]) == 0
    assert seen == [(3, 4, 16, 16)]
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert "are resampled to 16 x 16" in note


def test_mistakes_are_one_line(file, folder, tmp_path, capsys):
    for name in ("pt_inception-2015-12-05-6726825d.pth", "model.bin", "inception.pt"):
        error = fails(capsys, folder, "--features", tmp_path / name)
        assert "is a pickle, which could run anything and is never opened: convert it to .safetensors once" in error
    assert "nothing.safetensors is not there" in fails(capsys, folder, "--features", tmp_path / "nothing.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(file.read_bytes()[:1000])
    assert "is damaged or truncated" in fails(capsys, folder, "--features", tmp_path / "broken.safetensors")
