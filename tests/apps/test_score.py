"""`diorama score` on folders of little pictures, seen by a clip of random weights."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from diorama.apps.cli import main
from diorama.assets import asset
from diorama.critics.fidelity import ms_ssim, perceptual
from diorama.networks.classifier import ClassifierConfig, ClassifierNetwork
from diorama.networks.towers import TowerConfig
from diorama.systems.base import load_system
from diorama.systems.understanding.classifier import Classifier
from diorama.systems.understanding.clip import Clip

NAMES = {
    "CLIP score",
    "R-precision, 1 of 12",
    "diversity",
    "diversity of the reference",
    "Fréchet distance",
    "Fréchet distance, halves of the reference",
    "kernel distance (KID)",
    "precision",
    "recall",
    "density",
    "coverage",
    "PSNR",
    "SSIM",
    "MS-SSIM",
    "perceptual distance",
}


@pytest.fixture(autouse=True)
def nothing_trained(tmp_path, monkeypatch) -> Path:
    """Where this user keeps what was trained here: nothing so far."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "diorama" / "foundations"


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("scorer") / "eye"
    tower = TowerConfig(size=16, patch=2, widths=(16, 16))
    tiny.randomised(Clip.build(tiny.sentence_encoder(), [], tower)).save_pretrained(folder, name="eye")
    return str(folder)


def pictures(folder: Path, n: int, seed: int = 0, side: int = 16, shift: int = 0) -> Path:
    """n pictures of noise, each with a caption of its own among twelve."""
    folder.mkdir(parents=True)
    values = np.random.default_rng(seed).integers(0, 200, (n, side, side, 3))
    for i, value in enumerate(values):
        Image.fromarray((value + shift).astype(np.uint8)).save(folder / f"{i:03d}.png")
        colour, thing = list(tiny.COLOURS)[i % 4], ("square", "round", "thing")[i % 3]
        (folder / f"{i:03d}.txt").write_text(f"a {colour} {thing}")
    return folder


def score(capsys, *arguments: object) -> dict:
    """What is printed as JSON, by measure."""
    assert main(["score", *map(str, arguments), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    return {row["measure"]: row for row in found["scores"]} | {"notes": found["notes"]}


def fails(capsys, *arguments: object) -> str:
    assert main(["score", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_every_measure_says_its_error_unit_direction_and_ground(clip, tmp_path, capsys):
    made, real = pictures(tmp_path / "made", 64, shift=20), pictures(tmp_path / "real", 64)
    found = score(capsys, made, "--reference", real, "--paired", "--features", clip)
    assert found.pop("notes") == []
    assert set(found) == NAMES
    assert "16 x 16 pixels are too few for 5 scales" in found.pop("MS-SSIM")["why"]
    assert "does not tell what it sees at each place" in found.pop("perceptual distance")["why"]
    for name, row in found.items():
        assert set(row) == {"measure", "value", "stderr", "unit", "higher_is_better", "n", "features"}
        assert row["features"].startswith("pixels" if name in ("PSNR", "SSIM") else "eye ")
    assert found["PSNR"]["value"] == pytest.approx(20 * np.log10(255 / 20), rel=1e-4)
    assert found["PSNR"]["n"] == 64
    assert found["SSIM"]["value"] < 1


def test_a_set_beside_itself(clip, tmp_path, capsys):
    real = pictures(tmp_path / "real", 40)
    found = score(capsys, real, "--reference", real, "--paired", "--features", clip)
    assert [found[name]["value"] for name in ("precision", "recall", "coverage", "SSIM")] == pytest.approx([1] * 4)
    assert found["Fréchet distance"]["value"] == pytest.approx(0, abs=1e-6)
    assert found["PSNR"]["why"] == "of equal pictures it is infinite"
    assert found["notes"] == []


def test_the_table_has_a_line_for_each_and_says_why_one_is_missing(clip, tmp_path, capsys):
    made, real = pictures(tmp_path / "made", 15), pictures(tmp_path / "real", 40)
    assert main(["score", str(made), "--reference", str(real), "--features", clip]) == 0
    out, err = capsys.readouterr()
    assert "diversity of the reference" in out
    assert "Fréchet distance: 15 pictures are too few" in out
    assert " ± " in out
    assert "n = 15" in out
    assert err == ""


def test_captions_of_a_table_count_instead_of_those_beside(clip, tmp_path, capsys):
    made = pictures(tmp_path / "made", 12)
    table = tmp_path / "captions.jsonl"
    lines = [{"file_name": f"{i:03d}.png", "text": f"a {'red' if i % 2 else 'blue'} thing"} for i in range(10)]
    table.write_text("\n".join(map(json.dumps, lines)))
    found = score(capsys, made, "--text", table, "--features", clip)
    assert found["CLIP score"]["n"] == 10
    assert "R-precision, 1 of 2" in found
    assert found["notes"] == ["2 of 12 pictures have no caption"]


def test_other_sizes_are_told_and_only_equal_ones_are_paired(clip, tmp_path, capsys):
    made, real = pictures(tmp_path / "made", 12), pictures(tmp_path / "real", 12, seed=1)
    Image.open(made / "003.png").resize((40, 20)).save(made / "003.png")
    for suffix in ("png", "txt"):
        (made / f"004.{suffix}").rename(made / f"new.{suffix}")
    (made / "005.png").write_bytes(b"no picture")
    found = score(capsys, made, "--reference", real, "--paired", "--features", clip)
    assert found["PSNR"]["n"] == 9
    assert [note.split(":")[0] for note in found["notes"]] == [
        "1 of 12 pictures cannot be read and are left out, the first",
        "pictures of 1 other size are resampled to 16 x 16",
        "9 of 12 pictures have a partner of the same name and size",
    ]


def test_the_shipped_network_looks_where_none_is_given(tmp_path, capsys):
    made, real = pictures(tmp_path / "made", 20, side=32, shift=20), pictures(tmp_path / "real", 20, side=32)
    found = score(capsys, made, "--reference", real, "--paired")
    assert found["diversity"]["n"] == 20
    for name in ("diversity", "density", "coverage", "perceptual distance"):
        assert found[name]["features"].startswith("world-features ")
    (note,) = found["notes"]
    assert "the captions are not used: world-features " in note and "run `diorama foundations world-scorer` once" in note
    for file in made.glob("*.txt"):
        file.unlink()
    assert main(["score", str(made)]) == 0
    assert capsys.readouterr().err == ""


def test_the_scorer_reads_captions_where_it_is_trained(clip, nothing_trained, tmp_path, capsys):
    made, table = pictures(tmp_path / "made", 12), tmp_path / "captions.csv"
    table.write_text("file_name,text\n000.png,a red thing\n001.png,a blue thing\n")
    error = fails(capsys, made, "--text", table)
    assert "reads no sentences and world-scorer is not here: run `diorama foundations world-scorer` once" in error
    shutil.copytree(clip, nothing_trained / "world-scorer")
    found = score(capsys, made, "--text", table)
    assert (found["CLIP score"]["n"], found["diversity"]["n"]) == (2, 12)
    assert [found[name]["features"].split()[0] for name in ("CLIP score", "R-precision, 1 of 2", "diversity")] == [
        "eye",
        "eye",
        "world-features",
    ]
    own = score(capsys, made, "--text", table, "--features", clip)
    assert own["CLIP score"]["value"] == pytest.approx(found["CLIP score"]["value"], abs=1)  # it looks at 32 pixels, then at 16


def test_captions_of_no_picture_are_a_mistake(clip, tmp_path, capsys):
    made, table = pictures(tmp_path / "made", 3), tmp_path / "captions.jsonl"
    lines = [{"file_name": f"{i}.jpg", "text": text} for i, text in enumerate(("a red thing", "a blue thing", ""))]
    table.write_text("\n".join(map(json.dumps, lines)))
    error = fails(capsys, made, "--text", table, "--features", clip)
    assert "none of 2 captions belongs to a picture" in error and "the first 000.png" in error


def test_pairs_are_compared_by_every_measure_that_they_are_large_enough_for(tmp_path, capsys):
    made, real = pictures(tmp_path / "made", 4, side=180, shift=20), pictures(tmp_path / "real", 4, side=180)
    for folder in (made, real):
        Image.open(folder / "003.png").resize((40, 20)).save(folder / "003.png")
    found = score(capsys, made, "--reference", real, "--paired")
    assert [found[name]["n"] for name in ("PSNR", "SSIM", "MS-SSIM", "perceptual distance")] == [4, 4, 3, 4]
    x, y = (
        torch.from_numpy(np.stack([np.asarray(Image.open(folder / f"{i:03d}.png")) for i in range(3)])) for folder in (made, real)
    )
    theirs = ms_ssim(*(z.movedim(-1, 1) / 127.5 - 1 for z in (x, y))).mean()
    assert found["MS-SSIM"]["value"] == pytest.approx(float(theirs), abs=1e-4)
    assert "1 of 4 pairs have no MS-SSIM, the first: 40 x 20 pixels are too few" in found["notes"][-1]


def test_the_perceptual_distance_is_of_the_maps_of_the_network(tmp_path, capsys):
    made, real = pictures(tmp_path / "made", 3, side=32, shift=20), pictures(tmp_path / "real", 3, side=32)
    found = score(capsys, made, "--reference", real, "--paired")
    network = load_system(asset("world-features"))
    x, y = (
        network.maps(torch.stack([torch.from_numpy(np.array(Image.open(file))).movedim(-1, 0) / 127.5 - 1 for file in files]))
        for files in (sorted(made.glob("*.png")), sorted(real.glob("*.png")))
    )
    assert found["perceptual distance"]["value"] == pytest.approx(perceptual(x, y).mean().item(), rel=1e-4)
    assert found["perceptual distance"]["value"] > 0


def test_a_picture_of_no_numbers_is_left_out(tmp_path, capsys):
    made = pictures(tmp_path / "made", 4)
    for i, value in enumerate((np.nan, np.inf)):
        Image.fromarray(np.full((16, 16), value, np.float32)).save(made / f"none{i}.tif")
    found = score(capsys, made)
    assert found["diversity"]["n"] == 4
    assert (
        "2 of 6 pictures cannot be read and are left out, the first: none0.tif: some of its values are NaN" in found["notes"][0]
    )


def test_mistakes_are_one_line(clip, tiny_model, tmp_path, capsys):
    empty, one = tmp_path / "empty", pictures(tmp_path / "one", 1)
    empty.mkdir()
    assert "no pictures in" in fails(capsys, empty, "--features", clip)
    (one / "000.txt").unlink()
    assert "1 pictures are too few" in fails(capsys, one, "--features", clip)
    assert "has no features to give" in fails(capsys, one, "--features", tiny_model)
    assert "give the real pictures with --reference" in fails(capsys, one, "--features", clip, "--paired")
    assert "no table of captions" in fails(capsys, one, "--features", clip, "--text", "captions.doc")
    assert "size 0 is not allowed" in fails(capsys, one, "--features", clip, "--size", "0")
    (one / "000.png").write_bytes(b"no picture")
    assert "none of 1 pictures can be read" in fails(capsys, one, "--features", clip)


def test_a_network_without_words_or_a_size_of_its_own(tmp_path, capsys):
    made, folder = pictures(tmp_path / "made", 6), tmp_path / "plain"
    Classifier(ClassifierNetwork(ClassifierConfig(labels=2, widths=(8, 8))), ("a", "b")).save_pretrained(folder)
    assert "give the one it was trained at with --size" in fails(capsys, made, "--features", folder)
    found = score(capsys, made, "--features", folder, "--size", 16)
    assert set(found) == {"diversity", "notes"}
    assert "the captions are not used: plain " in found["notes"][0]


def test_of_sets_of_two_sizes_as_many_are_compared(clip, tmp_path, capsys):
    made, real = pictures(tmp_path / "made", 32), pictures(tmp_path / "real", 64)
    found = score(capsys, made, "--reference", real, "--features", clip)
    assert [found[name]["n"] for name in ("kernel distance (KID)", "precision", "coverage")] == [32] * 3


def test_torch_is_not_imported_for_a_mistake():
    for arguments in (["--help"], ["x", "--features", "nothing"]):
        code = f"import sys; from diorama.apps.cli import main; main(['score', *{arguments}]); sys.exit('torch' in sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_network_that_is_not_here_is_named(tmp_path, capsys):
    error = fails(capsys, pictures(tmp_path / "made", 3), "--features", "world-scorer")
    assert "world-scorer is not here: run `diorama foundations world-scorer` once" in error
