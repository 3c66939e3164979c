"""The registry, and one model all the way from its plan to its folder."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from diorama import cards, models, pipeline
from diorama.apps.cli import main
from diorama.assets import asset
from diorama.errors import UserError
from diorama.foundations import FOUNDATIONS, find, folder_of, foundation, make, measures, registry
from diorama.foundations.data import data_of, items_of
from diorama.foundations.plans import DEFAULTS, PLANS
from diorama.foundations.registry import HELD_OUT
from diorama.foundations.world import world_of
from diorama.models import locate
from diorama.training.plan import Plan
from diorama.worlds.scene import Rules
from diorama.worlds.source import unseen

QUICK = Plan(steps=2, batch=4, sample_every=10, warmup=1, device="cpu", dtype="float32")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A user's cache that is empty, and a package without models."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in (registry, models):
        monkeypatch.setattr(module, "asset", lambda name: tmp_path / "package" / name)
    return tmp_path / "cache" / "diorama" / "foundations"


@pytest.fixture
def quick(monkeypatch):
    """A codec after two steps, measured on a handful of pictures."""
    what = replace(find("world-codec-f8"), size=32)
    monkeypatch.setitem(FOUNDATIONS, what.name, what)
    monkeypatch.setitem(PLANS, what.name, QUICK)
    monkeypatch.setattr(measures, "CHUNK", 8)
    monkeypatch.setattr(measures, "N", 16)
    return what


@pytest.mark.parametrize("what", FOUNDATIONS.values(), ids=lambda what: what.name)
def test_every_model_has_a_system_a_preset_and_a_world(what):
    card = cards.find(what.system)
    card.check_preset(what.preset)
    batch = items_of(what, 5).batch(0, 2)
    frames = [what.rules["frames"]] if what.moving else []
    assert batch.image.shape == (2, 4, *frames, what.size, what.size)
    if what.base:
        assert find(what.base).storage
        assert list(FOUNDATIONS).index(what.base) < list(FOUNDATIONS).index(what.name)


FLAT = [what for what in FOUNDATIONS.values() if not (what.moving or what.around)]


@pytest.mark.parametrize("what", FLAT, ids=lambda what: what.name)
def test_a_model_of_pictures_knows_one_world_however_it_is_opened(what):
    one, other = world_of(what, 5), data_of(what).world(5)
    assert all(getattr(one, field) == getattr(other, field) for field in ("seed", "n", "size", "rules", "form", "label"))
    assert one.rules.held_out == ()


def test_a_model_of_clips_knows_no_pictures():
    with pytest.raises(AssertionError, match=r"use foundations\.data"):
        world_of(find("world-motion"), 5)


def test_every_model_has_a_plan():
    assert list(PLANS) == list(FOUNDATIONS)


def test_a_shipped_model_paints_as_it_was_measured():
    for name, how in DEFAULTS.items():
        assert pipeline.load(name).defaults == {**pipeline.DEFAULTS, **how}


def test_nobody_is_shown_what_is_held_out():
    held = {unseen(Rules(**({} if what.moving else what.rules)), HELD_OUT) for what in FOUNDATIONS.values()}
    assert all(pairs == tuple(pair for pair in max(held, key=len) if pair in pairs) for pairs in held)  # the same for all
    for what in FOUNDATIONS.values():
        source = data_of(what).open(PLANS[what.name].seed)
        scenes = [source.clip(i).shots[0].scene if what.moving else source.scene(i) for i in range(200)]
        things = [thing for made in scenes for thing in made.named]
        assert not {(t.colour, t.shape) for t in things} & set().union(*held)


def test_what_is_not_here_is_trained_once_into_the_cache(cache, quick, capsys):
    assert folder_of(quick.name) is None
    said = []
    system = make.ready(quick.name, say=said.append)
    folder = folder_of(quick.name)
    assert folder == cache / quick.name
    assert any("is not here yet" in line for line in said)
    assert f"{PLANS[quick.name].steps}/{PLANS[quick.name].steps}" in capsys.readouterr().err
    index = json.loads((folder / "model_index.json").read_text())
    assert index["measured"]["PSNR"]["unit"] == "dB"
    assert index["size"] == 32
    assert f"diorama foundations {quick.name}" in (folder / "README.md").read_text()
    assert locate(quick.name) == folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = foundation(quick.name)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert all(torch.equal(a, b) for a, b in zip(system.state_dict().values(), again.state_dict().values(), strict=True))


def test_what_is_shipped_is_small():
    """10 MB for the models of the world, 16 with those of all families: who clones the repository takes them along."""
    sizes = {folder.name: sum(file.stat().st_size for file in folder.rglob("*.safetensors")) for folder in asset("").iterdir()}
    own = {name: size for name, size in sizes.items() if name.startswith("world-") and name not in ("world-views", "world-sam")}
    assert sum(own.values()) <= 10e6
    assert sum(size for name, size in sizes.items() if name.startswith("world-")) <= 16e6


def test_the_verb_lists_and_trains(cache, quick, capsys):
    assert main(["foundations"]) == 0
    assert "world-codec-f8" in capsys.readouterr().out
    assert main(["foundations", "--out", "somewhere"]) == 2
    assert "--out somewhere is for one of them: name which to train" in capsys.readouterr().err
    assert main(["foundations", quick.name]) == 0
    out, err = capsys.readouterr()
    assert out.strip().endswith(str(cache / quick.name))
    assert err.startswith(f"{quick.name} is trained into {cache / quick.name}: {QUICK.steps} steps of {QUICK.batch}")
    assert main(["foundations", "--json"]) == 0
    row = next(row for row in json.loads(capsys.readouterr().out) if row["name"] == quick.name)
    assert (row["where"], row["parameters"] > 0, "PSNR" in row["measured"]) == ("trained here", True, True)


def test_a_place_that_is_taken_is_told_before_any_training(tmp_path, capsys):
    (tmp_path / "taken").write_text("mine")
    assert main(["foundations", "world-sam", "-o", str(tmp_path / "taken")]) == 2
    assert "taken holds something else: name a new folder with --out" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_an_unknown_name_is_told_with_its_neighbours(capsys):
    assert main(["foundations", "world-clop"]) == 2
    assert "world-clip" in capsys.readouterr().err
    with pytest.raises(UserError, match="diorama foundations"):
        find("nothing like it")


def test_the_list_needs_no_torch():
    code = "import sys; from diorama.apps.cli import main; main(['foundations']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
