import json
import shutil
from dataclasses import replace

import pytest
import tiny
import torch

from diorama.errors import UserError
from diorama.models import index_of
from diorama.networks.precision import has_bfloat16_units
from diorama.networks.unet import UNet
from diorama.sources import Data, Worlds
from diorama.systems.base import load_system
from diorama.systems.images import flow
from diorama.systems.images.flow import Flow
from diorama.train import train
from diorama.training.plan import Plan
from diorama.types import Noise

PLAN = Plan(steps=3, batch=4, log_every=1, sample_every=2, save_minutes=0, device="cpu", dtype="float32")


@pytest.fixture(scope="module", autouse=True)
def small():
    """A network that takes its steps in no time: what is tested is all around it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(flow.PRESETS, "mini", replace(flow.PRESETS["mini"], widths=(32,), depth=1, embedding=64))
        yield


class Run:
    """One way to train, whose words can be changed one at a time."""

    def __init__(self, data, base, out):
        self.data, self.base, self.out, self.said, self.encoded, self.steps = Data(path=data, size=16), base, out, [], [], []

    def __call__(self, plan=PLAN, slug="flow", preset="mini", **changes):
        told = {"on_step": self.steps.append, "on_encode": self.encoded.append, "say": self.said.append}
        return train(slug, replace(self.data, **changes), self.out, plan, preset=preset, base=self.base, **told)


@pytest.fixture
def run(picture_folder, base, tmp_path):
    return Run(picture_folder, base, tmp_path / "run")


@pytest.fixture(scope="module")
def done(picture_folder, base, tmp_path_factory):
    finished = Run(picture_folder, base, tmp_path_factory.mktemp("runs") / "done")
    finished()
    return finished


@pytest.fixture
def copied(done, picture_folder, base, tmp_path):
    shutil.copytree(done.out, tmp_path / "run")
    return Run(picture_folder, base, tmp_path / "run")


def test_it_says_what_it_found(done):
    assert done.said[0].startswith("12 pictures")
    assert "captions: 12 present, 0 missing" in done.said
    assert "2 labels: flat 6, solid 6" in done.said
    assert any(line.endswith("a red square") for line in done.said)


def test_it_leaves_what_it_promised(done):
    assert sorted(path.name for path in (done.out / "samples").iterdir()) == ["step-00000002.png", "step-00000003.png"]
    assert [json.loads(line)["step"] for line in (done.out / "log.jsonl").read_text().splitlines()] == [1, 2, 3]
    assert {path.suffix for path in done.out.rglob("*") if path.is_file()} == {".json", ".jsonl", ".safetensors", ".png"}
    assert not list(done.out.rglob(".*"))
    assert [step.index for step in done.steps] == [0, 1, 2]


def test_its_model_loads_and_draws(done):
    system = load_system(done.out / "model")
    assert isinstance(system, Flow)
    assert system.styles == tiny.STYLES
    assert system.sample(["a red square"], ["flat"], steps=2, noise=Noise([0])).shape == (1, 4, 16, 16)
    assert json.loads((done.out / "model" / "model_index.json").read_text())["pictures"] == 12


def test_a_finished_run_is_left_as_it_is(copied):
    weights = copied.out / "model" / "network" / "model.safetensors"
    before = weights.stat()
    copied()
    assert weights.stat() == before
    assert copied.said[-1].endswith("ask for more with --steps to go on")


@pytest.mark.skipif(not has_bfloat16_units(), reason="this processor multiplies no bf16 in hardware")
def test_it_trains_in_bfloat16_too(run):
    run(replace(PLAN, dtype="bfloat16"))
    assert len(run.steps) == PLAN.steps


def test_a_mended_caption_is_encoded_anew(base, tmp_path):
    folder = tiny.pictures(tmp_path / "data")
    run = Run(folder, base, tmp_path / "run")
    run()
    seen = len(run.encoded)
    next(folder.rglob("*.txt")).write_text("a dark square")
    run(replace(PLAN, steps=4))
    assert len(run.encoded) == 2 * seen


def test_it_goes_on_where_it_was_and_encodes_nothing_again(copied):
    copied(replace(PLAN, steps=5))
    assert [step.index for step in copied.steps] == [3, 4]
    assert not copied.encoded


def test_cached_or_not_the_steps_are_the_same(done, run):
    run(cache=False)
    losses = [json.loads(line)["loss"] for out in (done.out, run.out) for line in (out / "log.jsonl").read_text().splitlines()]
    assert torch.allclose(torch.tensor(losses[:3]), torch.tensor(losses[3:]), rtol=1e-2)  # the cache is float16


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"preset": "nano"}, "was started with preset 'mini', not 'nano': use that to resume, or another --out"),
        ({"size": 32}, "started with size 16, not 32"),
        ({"plan": replace(PLAN, seed=1)}, "started with seed 0, not 1"),
        ({"slug": "autoencoder", "preset": "mini"}, "started with system 'flow', not 'autoencoder'"),
    ],
)
def test_other_words_are_refused_on_a_resume(copied, change, line):
    with pytest.raises(UserError, match=line) as caught:
        copied(**change)
    assert "\n" not in str(caught.value)


def test_other_data_is_refused_on_a_resume(copied, tmp_path):
    copied.data = replace(copied.data, path=tiny.pictures(tmp_path / "other"))
    with pytest.raises(UserError, match="started with data 'squares', not 'other'"):
        copied()


def test_other_frozen_parts_are_refused_on_a_resume(copied, base, tmp_path):
    shutil.copytree(base, tmp_path / "base")
    tiny.randomised(tiny.codec(), 1).save_pretrained(tmp_path / "base" / "codec")
    copied.base = tmp_path / "base"
    with pytest.raises(UserError, match="started with frozen parts"):
        copied()


@pytest.mark.parametrize("cache", [True, False])
def test_unreadable_pictures_are_counted_and_named(run, tmp_path, cache):
    run.data = replace(run.data, path=tiny.pictures(tmp_path / "broken", 24))
    broken = sorted(run.data.path.rglob("*.png"))[3]
    broken.write_bytes(broken.read_bytes()[:40])
    run(replace(PLAN, steps=7), cache=cache)
    lines = [line for line in run.said if "left out" in line]
    assert len(lines) == 1
    assert lines[0].startswith("1 pictures could not be read")
    assert broken.stem in lines[0]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"preset": "huge"}, "preset 'huge' is not known: use nano, mini, base"),
        ({"size": 18}, "size 18 is not a multiple of 4"),
        ({"slug": "flaw"}, "did you mean flow"),
        ({"often": "base"}, "is not FIELD=TIMES"),
    ],
)
def test_a_mistake_is_told_in_one_line(run, change, line):
    with pytest.raises(UserError, match=line) as caught:
        run(**change)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_is_told_in_one_line(run, tmp_path):
    (tmp_path / "empty").mkdir()
    run.data = replace(run.data, path=tmp_path / "empty")
    with pytest.raises(UserError):
        run()


def test_an_out_that_is_a_file_is_told_in_one_line(run):
    run.out.write_text("")
    with pytest.raises(UserError, match="choose another --out"):
        run()


def test_composed_pictures_and_a_hold_out_without_concepts(run):
    run(compose=1, hold_out=0.1)
    assert run.said[0].startswith("12 pictures")  # what is there, not what is composed of it


# --- from a trained model -------------------------------------------------------------------------


def begun(run, tmp_path, start, data=None):
    """A run that goes on from this model."""
    plan = replace(PLAN, steps=2, lr=1e-3)
    train("flow", data or run.data, tmp_path / "tuned", plan, start=start, say=run.said.append)
    return Flow.from_pretrained(tmp_path / "tuned" / "model")


def test_it_goes_on_from_all_of_a_trained_model(done, tmp_path, monkeypatch):
    monkeypatch.setattr(Flow, "new", None)  # would fail
    start = Flow.from_pretrained(done.out / "model")
    start.save_pretrained(tmp_path / "start", defaults={"steps": 7})
    tuned = begun(done, tmp_path, tmp_path / "start")
    assert tuned.styles == start.styles
    assert index_of(tmp_path / "tuned" / "model")["defaults"] == {"steps": 7}
    moved = [(a - b).abs().max() for a, b in zip(tuned.network.parameters(), start.network.parameters(), strict=True)]
    assert 0 < max(moved) < 0.01  # two small steps from there
    for name in ("codec", "text"):
        assert all(
            torch.equal(a, b) for a, b in zip(getattr(tuned, name).parameters(), getattr(start, name).parameters(), strict=True)
        )


@pytest.mark.parametrize(
    ("slug", "preset", "size"), [("autoencoder", "f8", 16), ("upsampler", "nano", 64), ("masked-tokens", "nano", 32)]
)
def test_any_system_goes_on(done, tmp_path, slug, preset, size):
    """Also one that is measured at the end, one that stands on a codec only while it trains, and one of tokens."""
    data, base, say = replace(done.data, size=size), done.base, done.said.append
    if slug == "masked-tokens":
        train("vq", data, tmp_path / "codes", PLAN, say=say)
        base = tmp_path / "codes" / "model"
    train(slug, data, tmp_path / "first", PLAN, preset=preset, base=base, say=say)
    start = tmp_path / "first" / "model"
    train(slug, data, tmp_path / "second", replace(PLAN, steps=1, lr=1e-4), base=base, start=start, say=say)
    assert index_of(start)["size"] == size  # what the verb goes on at, unasked
    before, after = (load_system(folder).state_dict() for folder in (start, tmp_path / "second" / "model"))
    moved = [(before[name] - after[name]).abs().max() for name in before if before[name].is_floating_point()]
    assert 0 < max(moved) < 0.05


def test_labels_are_told_by_their_names(done, tmp_path):
    """Of a model that knows another label before those of the data, in another order, the same rows learn."""
    model = Flow.from_pretrained(done.out / "model")
    known = ("strange", *reversed(model.styles))
    network = tiny.randomised(UNet(replace(model.network.config, labels=len(known))))
    wide = Flow(model.codec, model.text, network, known, 16)
    wide.save_pretrained(tmp_path / "wide")
    tuned = begun(done, tmp_path, tmp_path / "wide")
    moved = (rows_of_labels(tuned) - rows_of_labels(wide)).abs().amax(1)
    assert tuned.styles == known
    assert moved[1] < moved[2:].min() / 10  # after the row for no label; weights decay a little


def rows_of_labels(model):
    return next(value for name, value in model.network.state_dict().items() if "label" in name)


def test_labels_that_the_model_does_not_know_are_told(done, tmp_path):
    model = Flow.from_pretrained(done.out / "model")
    wide = Flow(model.codec, model.text, UNet(replace(model.network.config, labels=1)), ("strange",), 16)
    wide.save_pretrained(tmp_path / "wide")
    begun(done, tmp_path, tmp_path / "wide")
    assert any("labels that the model does not know are left out" in line for line in done.said)
    Flow(wide.codec, wide.text, wide.network, ("strange",), 32).save_pretrained(tmp_path / "larger")
    with pytest.raises(UserError, match=r"the labels of world .* are not the model's \(strange\): begin anew"):
        begun(done, tmp_path / "w", tmp_path / "larger", data=Worlds(size=32))


@pytest.mark.parametrize(
    ("slug", "size", "line"),
    [
        ("ldm", 16, "done is a saved flow, which is no ldm: name another with --start"),
        ("flow", 32, "size 32 is not that of .*: use --size 16"),
    ],
)
def test_another_system_or_size_cannot_be_gone_on_from(done, tmp_path, slug, size, line):
    data = replace(done.data, size=size)
    with pytest.raises(UserError, match=line):
        train(slug, data, tmp_path / "x", PLAN, start=done.out / "model", say=done.said.append)
    assert not (tmp_path / "x").exists()


def test_a_run_within_what_it_goes_on_from_is_refused_before_any_work(done):
    before = sorted(done.out.rglob("*"))
    with pytest.raises(UserError, match="the model was read from"):
        train("flow", done.data, done.out / "model", PLAN, start=done.out / "model", say=done.said.append)
    assert sorted(done.out.rglob("*")) == before


def test_another_start_is_refused_on_a_resume_by_its_name(done, tmp_path):
    model = Flow.from_pretrained(done.out / "model")
    model.save_pretrained(tmp_path / "one", name="one")
    tiny.randomised(model.network)
    model.save_pretrained(tmp_path / "two", name="two")
    begun(done, tmp_path, tmp_path / "one")
    with pytest.raises(UserError, match=r"was started with start 'one \w{10}', not 'two \w{10}'"):
        begun(done, tmp_path, tmp_path / "two")


def test_a_codec_is_trained_and_normalised(run):
    run(replace(PLAN, steps=1), slug="autoencoder", preset="mini")
    codec = load_system(run.out / "model").codec
    assert not torch.equal(codec.scale, torch.ones_like(codec.scale))
