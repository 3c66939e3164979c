import json

import pytest
import torch
from PIL import Image

from diorama.apps.cli import main
from diorama.apps.lift import write_orbit
from diorama.pictures import to_pil
from diorama.scenes.cameras import orbit, transforms
from diorama.scenes.cloud import CloudConfig
from diorama.scenes.fields import VoxelConfig, VoxelField
from diorama.scenes.ply import read_ply
from diorama.scenes.surface import Mesh
from diorama.systems.scenes import dreamfusion
from diorama.worlds.scene import Rules, scene
from diorama.worlds.views import shoot

pytest.importorskip("numba")

RULES = Rules(grounds=("clear",), most=1, subjects=0.0)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder, camera = tmp_path_factory.mktemp("photographs"), orbit(8, 25.0, size=32)
    names = [f"{i}.png" for i in range(8)]
    for name, picture in zip(names, to_pil(shoot([scene(1, 0, RULES)], camera).image[0], transparent=True), strict=True):
        picture.save(folder / name)
    (folder / "transforms.json").write_text(json.dumps(transforms(camera, names)))
    return folder


def test_photographs_become_a_scene_and_the_scene_a_sheet(photographs, tmp_path, capsys):
    ply, sheet = tmp_path / "scene.ply", tmp_path / "orbit.png"
    assert main(["lift", str(photographs), "-o", str(ply), "--steps", "8", "--holdout", "4", "--most", "200"]) == 0
    assert "from 6 photographs" in (told := capsys.readouterr().out) and "dB" in told and "on 2 kept out" in told
    assert main(["look", str(ply), "-o", str(sheet), "--views", "4", "--size", "32"]) == 0
    assert Image.open(sheet).size == (2 * 32 + 4, 2 * 32 + 4)
    assert main(["look", str(ply), "-o", str(tmp_path / "orbit.webp"), "--views", "3", "--size", "32"]) == 0
    assert Image.open(tmp_path / "orbit.webp").n_frames == 3


def test_when_the_minutes_are_over_what_there_is_is_written(photographs, tmp_path):
    ply = tmp_path / "scene.ply"
    assert main(["lift", str(photographs), "-o", str(ply), "--steps", "100000", "--minutes", "0.0001", "--most", "200"]) == 0
    assert ply.is_file()


@pytest.fixture
def small(monkeypatch):
    """Scenes that are dreamt in a blink."""
    monkeypatch.setitem(dreamfusion.PRESETS, "mini", VoxelConfig(side=8, middle=(0.0, 0.0, 0.0), half=0.26, samples=8))
    monkeypatch.setattr(dreamfusion, "MANY", CloudConfig(places=100, degree=0))


def test_a_sentence_becomes_a_mesh_and_is_turned_around(tiny_model, tmp_path, monkeypatch, capsys, small):
    monkeypatch.chdir(tmp_path)
    assert main(["lift", "a red cube with a face", "--system", str(tiny_model), "--steps", "2"]) == 0
    assert capsys.readouterr().out == "a-red-cube-with-a-face.glb  a-red-cube-with-a-face.webp\n"
    assert (tmp_path / "a-red-cube-with-a-face.glb").read_bytes().startswith(b"glTF")
    assert Image.open(tmp_path / "a-red-cube-with-a-face.webp").n_frames == 24


def test_or_gaussians_that_look_opens(tiny_model, tmp_path, small):
    ply, sheet = tmp_path / "cube.ply", tmp_path / "sheet.png"
    assert main(["lift", "a red cube", "--system", str(tiny_model), "--steps", "1", "-o", str(ply), "--orbit", str(sheet)]) == 0
    assert len(read_ply(ply).means) == 100
    assert Image.open(sheet).size == (5 * 100 - 4, 5 * 100 - 4)


def test_what_is_not_solid_is_not_written(tiny_model, tmp_path, monkeypatch, capsys, small):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(VoxelField, "mesh", lambda self: (Mesh(torch.zeros(0, 3), torch.zeros(0, 3)), torch.zeros(0, 3)))
    assert main(["lift", "a red cube", "--system", str(tiny_model), "--steps", "1"]) == 2
    assert "nothing solid" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lift", "nowhere"], "nowhere from where"),
        (["lift", ".", "--holdout", "1"], "leaves nothing"),
        (["lift", ".", "-o", "scene.obj"], "no .ply"),
        (["look", "scene.ply", "-o", "orbit.avi"], ".webp, .gif, .png, .mp4"),
        (["lift", "a red cube", "-o", "cube.obj"], "no .ply or .glb"),
        (["lift", "a red cube", "--orbit", "cube.txt"], ".webp, .gif, .png, .mp4"),
        (["lift", "a red cube", "--steps", "0"], "--steps 1 or more"),
        (["lift", "a red cube", "--system", "nobody"], "not known"),
        (["lift", ".", "-o", "none/scene.ply"], "does not exist"),
        (["lift", ".", "--minutes", "nan"], "minutes nan is not allowed"),
        (["lift", " "], "nothing to lift"),
        (["lift", ".", "--seed", "-1"], "seed -1 is not allowed"),
        (["look", "scene.ply", "-o", "none/orbit.png"], "does not exist"),
        (["look", "scene.ply", "--views", "0"], "views 0 is not allowed: use 1 to 1000"),
        (["look", "scene.ply", "--elevation", "900"], "use -90 to 90 degrees"),
        (["look", "scene.ply", "--distance", "0"], "distance 0.0 is not allowed"),
        (["look", "scene.ply"], "cannot read"),
    ],
)
def test_a_mistake_is_one_line(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_an_orbit_can_be_a_film(tmp_path):
    av = pytest.importorskip("av")
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    write_orbit(tmp_path / "orbit.mp4", frames)
    with av.open(str(tmp_path / "orbit.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == len(frames)
