import pytest

from diorama.claims.claim import Effect, Part
from diorama.claims.verdict import judge, together

PART = Part(letter="A", statement="", unit="points", margin=10.0)
EXACT = Part(letter="A", statement="", unit="points", margin=10.0, exact=True)


def of(*values, stderr=0.0, part=PART):
    return judge(part, [Effect(value, {"arm": value + 1}, stderr) for value in values])


@pytest.mark.parametrize(
    ("values", "stderr", "verdict"),
    [
        ((11.0, 12.0, 13.0), 0.0, "holds"),
        ((10.0, 10.0, 10.0), 0.0, "holds"),  # the margin itself
        ((9.0, 9.0, 9.0), 0.0, "fails"),
        ((0.0, 9.0, 15.0), 0.0, "undecided"),  # below the margin, 8 +- 4.4
        ((0.0, 2.0, 4.0), 0.0, "fails"),  # 2 +- 1.15
        ((-30.0, 20.0, 70.0), 0.0, "undecided"),  # above the margin, perhaps below 0: 20 +- 29
        ((11.0, 12.0, 13.0), 11.0, "undecided"),  # the noise within a seed is larger than between: 12 +- 6.4
        ((11.0, 12.0, 13.0), 10.0, "holds"),  # 12 +- 5.8
        ((11.0, 12.0), 0.0, "undecided"),
        ((1.0,), 0.0, "undecided"),
    ],
)
def test_verdicts(values, stderr, verdict):
    assert of(*values, stderr=stderr).verdict == verdict


def test_the_numbers_of_three_seeds():
    judged = of(1.0, 2.0, 6.0)
    assert (judged.effect, judged.n, judged.arms) == (3.0, 3, {"arm": 4.0})
    assert judged.stderr == pytest.approx((7 / 3) ** 0.5)  # variance (4 + 1 + 9) / 2, over three


def test_too_few_seeds_are_said():
    assert of(20.0, 20.0).note == "2 seeds are too few: use 3 or more"
    assert of(20.0).stderr is None


@pytest.mark.parametrize(("value", "verdict"), [(10.0, "holds"), (9.999, "fails")])
def test_what_is_exact_needs_one_seed(value, verdict):
    judged = of(value, value, part=EXACT)
    assert (judged.verdict, judged.n, judged.stderr, judged.note) == (verdict, 1, 0.0, "")


def test_what_was_not_run_is_undecided_with_its_reason():
    judged = judge(PART, [Effect.missing("no model")] * 3)
    assert (judged.effect, judged.verdict, judged.note, judged.n) == (None, "undecided", "no model", 0)


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        (["holds", "holds"], "holds"),
        (["holds", "undecided"], "undecided"),
        (["undecided", "fails", "holds"], "fails"),
        ([], "undecided"),
    ],
)
def test_a_claim_is_as_its_parts(parts, verdict):
    assert together(parts) == verdict
