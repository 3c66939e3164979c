import pytest

from diorama.training.plan import Plan


def test_the_rate_rises_stays_and_falls():
    plan = Plan(steps=100, lr=2.0, warmup=10, decay=0.2)
    assert [plan.rate(step) for step in (0, 4, 9, 50, 80, 90, 99)] == pytest.approx([0.2, 1.0, 2.0, 2.0, 2.0, 1.0, 0.1])


@pytest.mark.parametrize("plan", [Plan(steps=5), Plan(steps=1), Plan(steps=10, warmup=0, decay=0.0), Plan(steps=4, decay=1.0)])
def test_the_rate_is_never_beyond_its_top_or_nothing(plan):
    assert all(0 < plan.rate(step) <= plan.lr for step in range(plan.steps))
