import json

import numpy as np
import pytest
import torch
from PIL import Image

from diorama.apps.cli import main
from diorama.data.runs import unrun
from diorama.systems.understanding.sam import Sam


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sam") / "model"
    Sam.new(preset="nano", size=32, labels=(), part=None).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "cat.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(path)
    return str(path)


def segment(picture, model, out, *flags):
    assert main(["segment", picture, "--model", model, "-o", str(out), *flags]) == 0
    return json.loads((out / "masks.json").read_text())


def test_a_point_gives_three_masks_and_each_is_what_its_runs_say(picture, model, tmp_path):
    out = tmp_path / "out"
    written = segment(picture, model, out, "--point", "12,4")
    assert written["image"] == {"file_name": "cat.png", "width": 30, "height": 20}
    rows = written["annotations"]
    assert len(rows) == 3
    assert [row["predicted_iou"] for row in rows] == sorted((row["predicted_iou"] for row in rows), reverse=True)
    for row in rows:
        mask = np.asarray(Image.open(out / row["file"])) > 0
        assert mask.shape == (20, 30)
        assert np.array_equal(unrun(row["segmentation"]), mask)
        assert row["area"] == mask.sum()
        left, top, wide, high = row["bbox"]
        assert mask[top : top + high, left : left + wide].sum() == row["area"]
        assert row["prompt"] == {"points": [[12.0, 4.0]], "labels": [1]}
    assert Image.open(out / "overlay.png").size == (30, 20)


def test_what_is_said_more_clearly_gets_one_mask(picture, model, tmp_path):
    ways = (
        (["--point", "12,4", "--away", "3,3"], 1),
        (["--box", "2,2,20,15", "--point", "12,4"], 1),
        (["--box", "2,2,20,15"], 1),
        (["--box", "2,2,20,15", "--box", "0,0,30,20"], 2),
    )
    for i, (flags, n) in enumerate(ways):
        assert len(segment(picture, model, tmp_path / str(i), *flags)["annotations"]) == n


def test_everything_that_is_found_is_sure_enough(picture, model, tmp_path, capsys):
    rows = segment(picture, model, tmp_path / "all", "--everything", "--side", "3", "--sure=-9", "--stable", "0")["annotations"]
    assert rows
    assert segment(picture, model, tmp_path / "none", "--everything", "--side", "3", "--sure", "9")["annotations"] == []
    assert "try --sure 0.7 --stable 0.7" in capsys.readouterr().err


def test_another_run_replaces_the_folder_and_nothing_else_is_replaced(picture, model, tmp_path, capsys):
    out = tmp_path / "out"
    segment(picture, model, out, "--point", "12,4")
    segment(picture, model, out, "--box", "2,2,20,15")
    assert sorted(path.name for path in out.iterdir()) == ["0.png", "masks.json", "overlay.png"]
    assert main(["segment", picture, "--model", model, "-o", str(tmp_path), "--point", "1,1"]) == 2  # where the picture lies
    assert "it holds other files and no masks.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ([], "tell what is meant by --point X,Y or --box X0,Y0,X1,Y1, or ask for --everything"),
        (["--everything", "--point", "1,1"], "not both"),
        (["--everything", "--side", "100000"], "side 100000 is not allowed: use 1 to 256"),
        (["--point", "30,4"], "point 30,4 lies outside the picture of 30 x 20 pixels"),
        (["--point", "here"], "point 'here' cannot be read: give 2 numbers with commas, such as 12,40"),
        (["--box", "9,9,4,12"], "box 9,9,4,12 has no inside: give left, top, right, bottom"),
        (["--away", "1,1"], "--away alone says nothing"),
        (["--box", "0,0,4,4", "--box", "1,1,5,5", "--point", "1,1"], "2 boxes are a thing each"),
    ],
)
def test_what_cannot_be_meant_is_told_in_one_line(picture, model, tmp_path, capsys, flags, line):
    assert main(["segment", picture, "--model", model, "-o", str(tmp_path), *flags]) == 2
    assert line in capsys.readouterr().err


def test_another_model_makes_no_masks(picture, tmp_path, capsys):
    assert main(["segment", picture, "--model", "default", "--point", "1,1"]) == 2
    assert "makes no masks" in capsys.readouterr().err
