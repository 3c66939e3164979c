import errno
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import diorama
from diorama.apps.cli import VERBS, _gist, main
from diorama.apps.output import steps_bar
from diorama.recipe import read_recipe, read_recipes
from diorama.types import Step

DIORAMA = [sys.executable, "-m", "diorama.apps.cli"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(diorama.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Commands run in an empty folder, on one thread, and see no terminal."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    yield tmp_path / "here"
    torch.set_num_threads(before)


@pytest.fixture
def generate(tiny_model):
    """diorama generate with the tiny model and one step: returns the exit code."""
    return lambda *arguments: main(["generate", *arguments, "--system", str(tiny_model), "--steps", "1"])


def names(folder="."):
    return sorted(path.name for path in Path(folder).iterdir())


def fails(capsys, code, expected=2):
    """The one line on standard error, nothing on standard output, no file."""
    out, err = capsys.readouterr()
    assert code == expected, err
    assert out == ""
    assert err.startswith("diorama: ")
    assert err.count("\n") == 1, err
    return err


# --- generate -------------------------------------------------------------------------------------


def test_a_sentence_becomes_a_picture_with_its_recipe(generate, capsys):
    assert generate("a red apple", "-o", "cat.png", "--seed", "7") == 0
    assert capsys.readouterr().out.startswith("cat.png  seed 7  ")
    recipe = read_recipe("cat.png")
    assert (recipe.prompt, recipe.seed, recipe.steps, recipe.model) == ("a red apple", 7, 1, "tiny")


def test_names_come_from_the_sentence_and_the_seed_and_never_clash(generate, capsys):
    assert generate("Två katter: hatt/../x!", "", "--n", "2", "--seed", "3") == 0
    assert generate("Två katter: hatt/../x!", "--seed", "3") == 0
    assert names() == [
        "picture-5.png",
        "picture-6.png",
        "tva-katter-hatt-x-3-2.png",
        "tva-katter-hatt-x-3.png",
        "tva-katter-hatt-x-4.png",
    ]


def test_several_pictures_into_one_name_are_numbered(generate):
    assert generate("a", "--n", "2", "-o", "x.png", "--seed", "1") == 0
    assert names() == ["x-1.png", "x-2.png"]
    assert read_recipe("x-2.png").seed == 2


def test_a_folder_is_made_where_it_is_asked_for_with_a_slash(generate):
    assert generate("a", "-o", "new/deep/", "--seed", "1") == 0
    assert generate("a", "-o", "new/deep", "--seed", "2") == 0
    assert names("new/deep") == ["a-1.png", "a-2.png"]


def test_a_seed_is_drawn_and_told(generate, capsys):
    assert generate("a", "--json") == 0
    assert generate("a", "--json") == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["seed"] != second["seed"]
    assert read_recipe(first["path"]).seed == first["seed"]
    assert set(first) == {"path", "prompt", "seed", "seconds"}


def test_every_option_reaches_the_recipe(generate):
    options = (
        "--negative blur --guidance 2.5 --style NOTO --size 48 --solver heun --transparent --seed 1 -o x.png --dtype float32"
    )
    assert generate("a", *options.split()) == 0
    r = read_recipe("x.png")
    assert (r.negative, r.guidance, r.style, r.size, r.solver, r.transparent, r.dtype) == (
        "blur",
        2.5,
        "noto",
        48,
        "heun",
        True,
        "float32",
    )
    with Image.open("x.png") as image:
        assert (image.mode, image.size) == ("RGBA", (48, 48))


def test_no_recipe(generate):
    assert generate("a", "-o", "x.png", "--no-recipe") == 0
    with Image.open("x.png") as image:
        assert image.info == {}


def test_sentences_from_a_file_one_a_line(generate):
    Path("lines.txt").write_text("a cat\n\n  two dogs  \r\n", encoding="utf-8")
    assert generate("first", "--prompts", "lines.txt", "--seed", "1") == 0
    assert names() == ["a-cat-2.png", "first-1.png", "lines.txt", "two-dogs-3.png"]


def test_sentences_from_json_lines_with_options_of_their_own(generate):
    rows = [
        {"prompt": "a", "seed": 40, "n": 2, "steps": 2},
        {"prompt": "b", "style": "noto", "negative": None},
        {"prompt": "c", "out": "chosen.png", "transparent": True, "size": 16},
    ]
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert generate("--prompts", "rows.jsonl", "--seed", "1", "--guidance", "2") == 0
    assert names() == ["a-40.png", "a-41.png", "b-1.png", "chosen.png", "rows.jsonl"]
    assert read_recipe("a-41.png").steps == 2
    assert read_recipe("b-1.png").style == "noto"
    assert (read_recipe("chosen.png").guidance, read_recipe("chosen.png").size) == (2.0, 16)


def test_sentences_from_standard_input(generate, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("a cat\n"))
    assert generate("--prompts", "-", "--seed", "1") == 0
    assert names() == ["a-cat-1.png"]


def test_a_grid_is_one_sheet_that_replays(generate, tiny_model):
    assert generate("a", "b", "--n", "2", "--grid", "--seed", "1", "-o", "sheet.png") == 0
    assert names() == ["sheet.png"]
    assert [r.seed for r in read_recipes("sheet.png")] == [1, 2, 3, 4]
    assert main(["replay", "sheet.png", "-o", "again.png", "--system", str(tiny_model)]) == 0
    assert Path("sheet.png").read_bytes() == Path("again.png").read_bytes()


def bad_files(folder):
    (folder / "empty.txt").write_text("\n\n")
    (folder / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    (folder / "broken.jsonl").write_text('{"prompt": "a"}\n{"prompt": ')
    (folder / "none.jsonl").write_text('{"text": "a"}')
    (folder / "odd.jsonl").write_text('{"prompt": "a", "colour": 1}')
    (folder / "steps.jsonl").write_text('{"prompt": "a", "steps": "ten"}')
    (folder / "n.jsonl").write_text('{"prompt": "a", "n": 100000}')
    (folder / "escape.jsonl").write_text('{"prompt": "a", "out": "../x.png"}')


BAD = {
    "no sentence": ([], "nothing to draw"),
    "steps": (["a", "--steps", "-3"], "1 to 1000"),
    "no number": (["a", "--n", "many"], "--n"),
    "none at all": (["a", "--n", "0"], "1 to 1000"),
    "size": (["a", "--size", "100000"], "16 to 1024"),
    "guidance": (["a", "--guidance", "nan"], "guidance"),
    "seed": (["a", "--seed", "-1"], "seed"),
    "last seed": (["a", "--seed", str(2**63 - 1), "--n", "2"], "seed"),
    "length": (["x" * 2001], "2000"),
    "solver": (["a", "--solver", "magic"], "euler, heun"),
    "style": (["a", "--style", "notto"], "use noto"),
    "dtype": (["a", "--dtype", "float16"], "float32"),
    "device": (["a", "--device", "abacus"], "cpu"),
    "no device": (["a", "--device", "meta"], "use auto"),
    "flag": (["a", "--stepz", "3"], "--stepz"),
    "format": (["a", "-o", "cat.gif"], ".png"),
    "folder": (["a", "-o", "new/cat.png"], "create it"),
    "sheet": (["a", "--n", "1000", "--size", "1024", "--grid"], "fewer or smaller"),
    "missing file": (["--prompts", "nothing.txt"], "cannot be read"),
    "a folder as file": (["--prompts", "../bad"], "cannot be read"),
    "empty file": (["--prompts", "../bad/empty.txt"], "no sentence"),
    "no text": (["--prompts", "../bad/bytes.txt"], "UTF-8"),
    "no json": (["--prompts", "../bad/broken.jsonl"], "line 2"),
    "no prompt": (["--prompts", "../bad/none.jsonl"], "line 1 has no prompt"),
    "unknown option": (["--prompts", "../bad/odd.jsonl"], "colour"),
    "bad option": (["--prompts", "../bad/steps.jsonl"], "line 1: steps"),
    "too many": (["--prompts", "../bad/n.jsonl"], "line 1: n"),
    "outside": (["--prompts", "../bad/escape.jsonl"], "line 1: out"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_line_exit_code_2_and_no_file(generate, tiny_model, here, capsys, case):
    (here.parent / "bad").mkdir()
    bad_files(here.parent / "bad")
    arguments, words = BAD[case]
    code = main(["generate", *arguments, "--system", str(tiny_model)])
    assert words in fails(capsys, code)
    assert names() == []


def test_an_unknown_or_damaged_model_is_one_line(tmp_path, capsys):
    assert "not known" in fails(capsys, main(["generate", "a", "--system", "nonsense"]))
    (tmp_path / "m").mkdir()
    assert "not a saved model" in fails(capsys, main(["generate", "a", "--system", str(tmp_path / "m")]))
    (tmp_path / "m" / "model_index.json").write_text("{")
    assert "not valid JSON" in fails(capsys, main(["generate", "a", "--system", str(tmp_path / "m")]))


def test_a_jpeg_without_a_ground_is_refused_before_any_work(capsys):
    assert "JPEG" in fails(capsys, main(["generate", "a", "--transparent", "-o", "x.jpg", "--system", "nonsense"]))


def test_names_of_lines_may_lie_in_folders_below(generate):
    Path("s.jsonl").write_text('{"prompt": "a", "out": "below/A.PNG"}')
    assert generate("--prompts", "s.jsonl", "-o", "out/") == 0
    assert names("out/below") == ["A.PNG"]


def test_too_little_memory_is_told_in_words(generate, capsys, monkeypatch):
    def greedy(*arguments, **options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")

    monkeypatch.setattr("diorama.pipeline.Pipeline._sample", greedy)
    assert "fewer or smaller" in fails(capsys, generate("a"), 1)


def test_a_bar_is_there_only_while_its_steps_are_made(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with steps_bar("encoding") as on_step:
        assert sys.stderr.getvalue() == ""
        on_step(Step(0, 2))
        assert "encoding" in sys.stderr.getvalue()
        on_step(Step(1, 2))
        ended = sys.stderr.getvalue()
    assert sys.stderr.getvalue() == ended


def test_a_full_disk_is_one_line_and_leaves_no_half_file(generate, capsys, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    assert "space" in fails(capsys, generate("a", "-o", "x.png"))
    assert names() == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_writable_is_told_before_sampling(generate, capsys):
    Path("locked").mkdir(mode=0o500)
    assert "not writable" in fails(capsys, generate("a", "-o", "locked/"))


def test_any_other_failure_is_one_line_with_a_hint(generate, capsys, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("a screw\nfell out")

    monkeypatch.setattr("diorama.pipeline.Pipeline._sample", broken)
    assert "DIORAMA_DEBUG" in fails(capsys, generate("a"), 1)
    monkeypatch.setenv("DIORAMA_DEBUG", "1")
    with pytest.raises(RuntimeError):
        generate("a")


def test_an_interrupt_keeps_what_is_done(generate, capsys, monkeypatch):
    from diorama.pipeline import Pipeline

    whole = Pipeline._pictures

    def two(self, chunks, on_step):
        yield from list(whole(self, chunks, on_step))[:2]
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, "_pictures", two)
    assert generate("a", "--n", "5", "--seed", "1") == 130
    assert names() == ["a-1.png", "a-2.png"]
    assert capsys.readouterr().err == "diorama: interrupted: 2 of 5 pictures are saved\n"
    assert generate("a", "--n", "5", "--seed", "1", "--grid", "-o", "sheet.png") == 130
    assert len(read_recipes("sheet.png")) == 2


def test_control_c_in_a_real_process(tiny_model):
    command = [*DIORAMA, "generate", "a", "--n", "1000", "--steps", "100", "--seed", "0", "--system", str(tiny_model)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # the first picture is there
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.count("\n") == 1
    assert "pictures are saved" in err
    assert all(name.endswith(".png") and not name.startswith(".") for name in names())


# --- replay ---------------------------------------------------------------------------------------


def test_replay_gives_the_same_file(generate, tiny_model, capsys):
    assert generate("a", "b", "--n", "2", "--seed", "5", "-o", "x.png") == 0
    for i in range(1, 5):
        assert main(["replay", f"x-{i}.png", "-o", "again.png", "--system", str(tiny_model)]) == 0
        assert Path("again.png").read_bytes() == Path(f"x-{i}.png").read_bytes()
    assert capsys.readouterr().err == ""


def test_replay_elsewhere_says_so(generate, tiny_model, capsys, monkeypatch):
    assert generate("a", "-o", "x.png") == 0
    monkeypatch.setattr("diorama.pipeline.processor_kind", lambda: "a-vacuum-tube")
    capsys.readouterr()
    assert main(["replay", "x.png", "-o", "y.png", "--system", str(tiny_model), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("diorama: replay on other ground (processor a-vacuum-tube, then ")
    assert json.loads(out)["exact"] is False
    a, b = (np.asarray(Image.open(name)).astype(int) for name in ("x.png", "y.png"))
    assert np.abs(a - b).max() <= 1


def test_replay_with_other_or_unnamed_weights_refuses(generate, other_model, capsys):
    assert generate("a", "-o", "x.png") == 0
    capsys.readouterr()
    assert "made with model 'tiny'" in fails(capsys, main(["replay", "x.png", "-o", "y.png", "--system", str(other_model)]))
    assert "name its folder with --system" in fails(capsys, main(["replay", "x.png", "-o", "y.png"]))
    assert names() == ["x.png"]


def test_replay_of_a_foreign_picture(capsys):
    Image.new("RGB", (4, 4)).save("x.png")
    assert "no diorama recipe" in fails(capsys, main(["replay", "x.png"]))
    assert "does not exist" in fails(capsys, main(["replay", "y.png"]))


# --- the catalogue and the rest -------------------------------------------------------------------


def test_systems_as_a_table_and_as_json(capsys):
    assert main(["systems"]) == 0
    assert "flow" in capsys.readouterr().out
    assert main(["systems", "--json"]) == 0
    assert {"flow", "autoencoder"} <= {card["slug"] for card in json.loads(capsys.readouterr().out)}


def test_show_a_system_and_a_saved_model(tiny_model, capsys):
    assert main(["show", "flow"]) == 0
    assert "SentenceEncoder" in capsys.readouterr().out
    assert main(["show", str(tiny_model)]) == 0
    out = capsys.readouterr().out
    assert "model tiny" in out
    assert "fluent 3d" in out
    assert main(["show", str(tiny_model), "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert set(model["parameters"]) == {"codec", "text", "network"}
    assert "did you mean flow" in fails(capsys, main(["show", "flaw"]))


def test_help_of_every_verb_and_unknown_verbs(capsys):
    for arguments in ([], ["--help"], ["--version"], *([verb, "--help"] for verb in VERBS)):
        assert main(arguments) == 0
        out, err = capsys.readouterr()
        assert out
        assert err == ""
    assert "did you mean generate?" in fails(capsys, main(["genrate"]))
    assert "is not a verb" in fails(capsys, main(["--nonsense"]))


def test_torch_is_not_imported_for_words_alone(tiny_model):
    for arguments in (
        ["--help"],
        ["generate", "--help"],
        ["train", "--help"],
        ["systems"],
        ["show", str(tiny_model)],
        ["generate", "a", "--steps", "0"],
    ):
        code = f"import sys; from diorama.apps.cli import main; main({arguments!r}); sys.exit('torch' in sys.modules)"
        subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=True, capture_output=True)


def test_a_reader_that_goes_away_is_no_error(monkeypatch, capsys):
    ended = subprocess.run(
        f"{' '.join(DIORAMA)} systems --json | true", shell=True, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert ended.stderr == ""


# --- train ----------------------------------------------------------------------------------------


def test_train_hands_its_flags_on(monkeypatch, capsys):
    import diorama.train

    seen = {}

    def pretend(slug, data, out, plan, **options):
        seen.update(slug=slug, data=data, out=out, plan=plan, **options)
        options["on_step"](diorama.types.Step(0, 2, values={"loss": 1.0, "pictures_per_second": 2.0}))

    monkeypatch.setattr(diorama.train, "train", pretend)
    flags = (
        "--data pictures --out runs/x --steps 7 --batch 3 --preset nano --size 64 --on-white --no-cache --tensorboard --lr 1e-3"
    )
    assert main(["train", "flow", *flags.split()]) == 0
    out, err = capsys.readouterr()
    assert out == f"{Path('runs/x/model')}\n"
    assert "loss 1.0000" in err
    data, plan = seen["data"], seen["plan"]
    assert (seen["slug"], seen["out"], seen["preset"], seen["tensorboard"]) == ("flow", Path("runs/x"), "nano", True)
    assert (plan.steps, plan.batch, plan.lr) == (7, 3, 1e-3)
    assert (data.path, data.size, data.on_white, data.cache) == (Path("pictures"), 64, True, False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("train flow", "--data"),
        ("train nonsense --data . --out x", "not known"),
        ("train flow --data . --out x --steps 0", "steps 0"),
        ("train flow --data . --out x --lr -1", "lr -1"),
        ("train flow --data . --out x --log-every 0", "log-every 0"),
        ("train flow --data . --out x --compose -1", "compose -1"),
        ("train flow --data . --out x --size 100000", "16 to 1024"),
        ("train flow --data . --out x --ema 1", "ema 1.0"),
        ("train autoencoder --data . --out x --preset nonsense", "use mini"),
        ("train flow --data nothing --out x --base nothing", "not known"),
        ("train flow --data . --out x --start nothing", "not known"),
        ("train flow --data . --out x --start default --preset mini", "--preset is the model's own"),
        ("train flow --data . --out x --start default --base default", "--base is the model's own"),
    ],
)
def test_training_mistakes_are_one_line(capsys, arguments, words):
    assert words in fails(capsys, main(arguments.split()))


def test_the_clock_of_help(tiny_model):
    """Seconds are measured by the benchmarks; held here is what makes them few."""
    code = "import sys; from diorama.apps.cli import main; main(['--help']); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"torch", "rich", "PIL", "tyro", "numpy"} & set(loaded)


def test_a_wrong_flag_is_told_alike_in_a_frame_and_in_plain_ascii():
    framed = "╭─ Value error ─╮\n│ Error parsing --n: 'x' │\n│ ────── │\n│ For full helptext │\n╰───╯\n"
    plain = "Value error\n-----------\nError parsing --n: 'x'\n------\nFor full helptext\n"
    assert _gist(framed) == _gist(plain) == "Error parsing --n: 'x'"
