import json

import pytest

from diorama.apps.cli import main
from diorama.apps.plan import DEVICES, Plan, forecast
from diorama.cards import find

NANO = ["plan", "ddpm", "--preset", "nano", "--size", "16"]


def told(capsys, *arguments):
    assert main([*NANO, *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def nano():
    return forecast(Plan(system="ddpm", preset="nano", size=16), find("ddpm"))


def test_a_plan_says_what_a_run_takes(nano):
    gigabytes, work, run = nano["gigabytes"], nano["work"], nano["run"]
    assert (
        gigabytes["weights"]
        == gigabytes["gradients"]
        == gigabytes["average"]
        == pytest.approx(4e-9 * nano["parameters"], abs=1e-3)
    )
    assert (
        gigabytes["peak"]
        <= sum(gigabytes[name] for name in ("weights", "gradients", "optimiser", "average", "activations")) + 1e-3
    )
    assert (run["batch"], run["steps"], run["at_once"], run["accumulate"], nano["fits"]) == (32, 10_000, 32, 1, True)
    assert work["tflop"] == work["tflop_per_step"] * 10_000
    assert work["days"] == pytest.approx(work["tflop"] / (DEVICES["h100"].bfloat16 * 0.35) / 86_400)


def test_more_gpus_take_less_time_and_less_at_once(nano, capsys):
    eight = told(capsys, "--gpus", "8", "--batch", "32", "--zero", "2")
    assert eight["work"]["tflop"] == pytest.approx(nano["work"]["tflop"])
    assert eight["work"]["days"] == pytest.approx(nano["work"]["days"] / 8)
    assert (eight["run"]["at_once"], eight["gigabytes"]["optimiser"] < nano["gigabytes"]["optimiser"]) == (4, True)
    assert any("ZeRO stage 2" in line for line in eight["assumptions"])


def test_what_does_not_fit_at_once_is_accumulated(capsys, monkeypatch):
    monkeypatch.setitem(DEVICES, "3090", DEVICES["3090"].__class__(0.05, 71, 35.6))
    small = told(capsys, "--hardware", "3090", "--batch", "100", "--steps", "1")
    assert small["fits"] and small["gigabytes"]["peak"] <= small["gigabytes"]["usable"] == 0.045
    assert small["run"]["accumulate"] > 1
    assert small["run"]["at_once"] * small["run"]["accumulate"] >= 100
    monkeypatch.setitem(DEVICES, "3090", DEVICES["3090"].__class__(0.001, 71, 35.6))
    assert not told(capsys, "--hardware", "3090", "--batch", "2", "--steps", "1")["fits"]


def test_pictures_are_another_way_to_say_steps(capsys):
    assert told(capsys, "--pictures", "100", "--batch", "32")["run"]["steps"] == 4


def test_the_papers_own_run_is_what_is_planned_for_the_published_size(capsys):
    assert main(["plan", "ddpm"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ddpm, preset paper: 35,746,307 trained parameters, 35.7 M in the paper"
    assert any("800,000 steps, 102,400,000 samples" in line for line in lines)
    assert {"weights", "gradients", "optimiser", "activations", "step", "time", "assumed"} <= {
        line.split()[0] for line in lines if line
    }


def test_it_says_whose_run_it_is(capsys):
    assert (
        told(capsys, "--size", "32")["assumptions"][0]
        == "size: as asked; batch: `diorama train`'s own; steps: `diorama train`'s own"
    )
    assert main(["plan", "ddpm", "--batch", "64"]) == 0
    assert "size: the paper's; batch: as asked; steps: the paper's" in capsys.readouterr().out


@pytest.mark.parametrize("slug", ["dalle3", "glide", "guided-diffusion", "imagen", "kandinsky3", "ldm", "rcg", "unclip"])
def test_pictures_by_diffusion_can_all_be_planned(slug):
    found = forecast(Plan(system=slug, preset="nano", size=32, batch=2), find(slug))
    assert found["work"]["tflop_per_step"] > 0 and found["fits"]
    assert abs(found["parameters"] / find(slug).presets["nano"] - 1) < 0.02  # but for what it stands on


def test_the_published_size_is_shown(capsys):
    assert main(["show", "ldm"]) == 0
    assert "1,416,790,608 trained parameters (1,450 M in the paper)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["dpm"], "did you mean ddpm"),
        (["ddpm", "--preset", "huge"], "preset 'huge' is not known: use nano, mini, paper"),
        (["ddpm", "--gpus", "0"], "gpus 0 is not allowed: use 1 or more"),
        (["ddpm", "--batch", "0"], "batch 0 is not allowed"),
        (["ddpm", "--gpus", "256"], "a batch of 128 leaves some of 256 GPUs without a sample: use --batch 256 or more"),
        (["ddpm", "--size", "20"], "size 20 is not a multiple of 8: use 16"),
        (["ddpm", "--steps", "1", "--pictures", "1"], "give one of them"),
        (["ddpm", "--pictures", "-4"], "pictures -4 is not allowed: use 1 or more"),
        (["mae", "--frames", "-3"], "frames -3 is not allowed: use 0 for pictures"),
        (["ddpm", "--utilisation", "2"], "utilisation 2.0 is not allowed"),
        (["ddpm", "--hardware", "abacus"], "invalid choice"),
        (["vq", "--size", "32"], "a step of vq cannot be followed"),
    ],
)
def test_what_cannot_be_planned_is_told_in_one_line(arguments, line, capsys):
    assert main(["plan", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and line in err and err.count("\n") == 1
