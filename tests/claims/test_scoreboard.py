from dataclasses import replace
from pathlib import Path

import pytest
import toys

from diorama.assets import asset
from diorama.claims import scoreboard
from diorama.claims.board import check, slugs
from diorama.claims.runner import verify
from diorama.claims.sources import stale
from diorama.errors import UserError

PAGE = Path(__file__).parents[2] / "docs" / "scoreboard.md"


@pytest.fixture(scope="module")
def row():
    return verify(toys.CLAIM)


def test_a_board_is_read_as_it_was_written(tmp_path, row):
    rows = {"toy": row, "other": replace(row, slug="other", note="stopped")}
    scoreboard.write(tmp_path, rows)
    assert scoreboard.read(tmp_path) == rows
    assert scoreboard.read(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "format_version None"),
        ('{"format_version": 9}', "9"),
        ('{"format_version": 1, "rows": [{}]}', "parts"),
    ],
)
def test_a_damaged_board_is_one_line(tmp_path, text, words):
    (tmp_path / "scoreboard.json").write_text(text)
    with pytest.raises(UserError, match=words):
        scoreboard.read(tmp_path)


def test_the_users_own_rows_come_before_the_shipped_ones(tmp_path, row, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    scoreboard.user_store().mkdir(parents=True)
    scoreboard.write(scoreboard.user_store(), {"samplers": replace(row, slug="samplers", title="mine")})
    assert scoreboard.known()["samplers"].title == "mine"


def test_the_page_shows_every_part_with_its_error_and_its_margin(row):
    page = scoreboard.page({"toy": row})
    assert "| [A toy](#toy) | **holds** | 3 |" in page
    assert "| A | one is at least a half | 1 ± 0 | 0.5 | ones | holds |" in page
    assert "| B | two is two | 2 | 0 | twos | holds |" in page
    assert "| [A toy](#toy) | **holds**, stale | 3 |" in scoreboard.page({"toy": row}, {"toy"})


def test_the_shipped_page_is_the_shipped_board_and_hides_no_stale_row():
    """Where it does not: `diorama verify --board src/diorama/assets --page docs/scoreboard.md`."""
    rows = scoreboard.read(asset(""))
    assert set(rows) <= set(slugs())
    assert PAGE.read_text(encoding="utf-8") == scoreboard.page(rows, stale(rows))


def test_a_row_whose_claim_is_gone_is_stale_and_no_error(row):
    assert stale({"toy": row}) == {"toy"}


def test_a_row_that_was_stopped_lacked_no_model(row):
    stopped = [replace(part, effect=None) for part in row.parts]
    assert not replace(row, parts=stopped).complete
    assert replace(row, parts=stopped, note="stopped in seed 0: more than 1 TFLOP").complete


def test_an_unknown_claim_is_told_its_neighbours():
    assert "samplers" in slugs()
    with pytest.raises(UserError, match="'sampler': use samplers"):
        check("sampler")
