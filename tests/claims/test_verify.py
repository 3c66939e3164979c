import json
import subprocess
import sys
from dataclasses import replace

import pytest
import toys

from diorama.apps.cli import main
from diorama.claims import board, runner, scoreboard
from diorama.claims.claim import Effect
from diorama.claims.sources import current


@pytest.fixture(autouse=True)
def ran(tmp_path, monkeypatch):
    """A user with an empty cache, in a house whose only claims are two toys."""
    claims = {"toy": toys.CLAIM, "worn-toy": toys.Worn()}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(board, "slugs", lambda: sorted(claims))
    monkeypatch.setattr(board, "find", claims.__getitem__)
    toys.RAN.clear()
    return toys.RAN


def test_a_claim_is_run_shown_and_kept(capsys):
    assert main(["verify", "toy"]) == 0
    out, err = capsys.readouterr()
    assert "one is at least a half" in out
    assert "toy (A toy): holds  3 seeds" in out
    assert err == ""
    assert scoreboard.known()["toy"].verdict == "holds"


def test_rows_as_json(capsys):
    assert main(["verify", "toy", "--seeds", "2", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["verdict"], row["seeds"], row["parts"][0]["note"]) == ("undecided", 2, "2 seeds are too few: use 3 or more")


def test_all_runs_what_is_stale_and_a_wrong_number_stops_no_other(ran, capsys, monkeypatch):
    monkeypatch.setattr(toys.Worn, "worth", float("nan"))
    assert main(["verify", "--all"]) == 1
    assert capsys.readouterr().err == "diorama: error: worn-toy, part A, seed 0: the effect is nan, not a number\n"
    assert set(scoreboard.known()) >= {"toy"}
    monkeypatch.setattr(toys.Worn, "worth", -1.0)
    ran.clear()
    assert main(["verify", "--all"]) == 0  # a claim that fails is no failure of the command
    assert ran == [0, 1, 2]
    assert scoreboard.known()["worn-toy"].verdict == "fails"


def test_all_runs_what_lacked_a_model_again(ran, monkeypatch):
    with monkeypatch.context() as without:
        without.setattr(toys.Toy, "run", lambda self, seed: dict.fromkeys("AB", Effect.missing("needs world-classes")))
        assert main(["verify", "--all"]) == 0
    assert main(["verify", "--all"]) == 0
    assert sorted(ran) == [0, 0, 1, 1, 2, 2]
    assert scoreboard.known()["toy"].verdict == "holds"


def test_a_board_and_a_page_of_ones_own(tmp_path, ran):
    arguments = ["verify", "--all", "--board", str(tmp_path / "board"), "--page", str(tmp_path / "board.md")]
    assert main(arguments) == 0
    assert (tmp_path / "board.md").read_text() == scoreboard.page(scoreboard.read(tmp_path / "board"))
    for kept in (tmp_path / "diorama").rglob("*.json"):
        kept.unlink()
    ran.clear()
    assert main(arguments) == 0
    assert ran == []  # the rows themselves are current


def test_a_page_alone_runs_nothing_and_marks_what_is_stale(tmp_path, ran):
    row = replace(runner.verify(toys.CLAIM), source="0" * 64)
    scoreboard.write(tmp_path, {"toy": row})
    ran.clear()
    assert main(["verify", "--board", str(tmp_path), "--page", str(tmp_path / "board.md")]) == 0
    assert (tmp_path / "board.md").read_text() == scoreboard.page({"toy": row}, {"toy"})
    assert ran == []


def test_a_row_that_is_carried_over_is_not_run_and_says_why(tmp_path, ran, capsys):
    old = replace(runner.verify(toys.CLAIM), source="0" * 64)
    scoreboard.write(tmp_path, {"toy": old})
    ran.clear()
    arguments = ["verify", "toy", "--board", str(tmp_path)]
    assert main([*arguments, "--carry", "a file was moved"]) == 0
    row = scoreboard.read(tmp_path)["toy"]
    assert (row.verdict, row.parts, row.date) == (old.verdict, old.parts, old.date) and current(row) and ran == []
    assert main([*arguments, "--carry", "and back"]) == 0
    assert scoreboard.read(tmp_path)["toy"].carried == "a file was moved; and back"
    assert "- carried over without another run: a file was moved\n" in scoreboard.page({"toy": row})
    assert main(arguments) == 0  # a run owes nothing to what was carried
    assert ran == [0, 1, 2] and scoreboard.read(tmp_path)["toy"].carried == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--all", "--carry", "why"], "the systems whose rows it is true of"),
        (["toy", "--carry", " "], "--carry needs a reason"),
        (["toy", "--carry", "why"], "no row of toy to carry over: run it without --carry"),
    ],
)
def test_what_cannot_be_carried_over_is_told(arguments, words, ran, capsys):
    assert main(["verify", *arguments]) == 2
    assert words in capsys.readouterr().err and ran == []


def test_an_interruption_says_what_is_kept(capsys, monkeypatch):
    whole = toys.Toy.run

    def interrupted(self, seed):
        if seed == 2:
            raise KeyboardInterrupt
        return whole(self, seed)

    monkeypatch.setattr(toys.Toy, "run", interrupted)
    assert main(["verify", "toy"]) == 130
    assert capsys.readouterr().err == "diorama: interrupted: 2 of 3 seeds of toy are kept, the same command goes on\n"
    monkeypatch.setattr(toys.Toy, "run", whole)
    toys.RAN.clear()
    assert main(["verify", "toy"]) == 0
    assert toys.RAN == [2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "use --all: toy, worn-toy"),
        (["toy", "--all"], "use --all"),
        (["troy"], "'troy': use toy"),
        (["toy", "--seeds", "0"], "1 to 100"),
        (["toy", "--budget", "nan"], "above 0"),
        (["toy", "--budget", "0"], "above 0"),
        (["toy", "--board", "/dev/null/x"], "cannot make the folder"),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, words):
    assert main(["verify", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert words in err


def test_the_catalogue_shows_the_verdict(capsys):
    row = replace(runner.verify(toys.CLAIM), slug="clip")
    scoreboard.user_store().mkdir(parents=True)
    scoreboard.write(scoreboard.user_store(), {"clip": row, "samplers": replace(row, slug="samplers")})
    assert main(["systems", "--json"]) == 0
    assert {card["slug"]: card["verdict"] for card in json.loads(capsys.readouterr().out)}["clip"] == "holds"
    assert main(["systems"]) == 0
    assert ["samplers", "study", "holds"] in [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert main(["show", "clip"]) == 0
    assert "verdict  holds (3 seeds" in capsys.readouterr().out


def test_torch_waits_until_a_claim_is_run():
    code = "import sys, diorama.apps.verify, diorama.apps.catalogue; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
