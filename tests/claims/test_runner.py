from dataclasses import replace

import pytest
import torch
import toys

from diorama.claims import runner, sources
from diorama.claims.claim import Effect
from diorama.claims.runner import Meter, OverBudget, verify
from diorama.foundations.plans import PLANS


@pytest.fixture(autouse=True)
def ran():
    toys.RAN.clear()
    return toys.RAN


def test_a_claim_becomes_a_row(tmp_path):
    row = verify(toys.CLAIM, store=tmp_path)
    assert (row.slug, row.verdict, row.seeds, row.note) == ("toy", "holds", 3, "")
    assert row.tflop == pytest.approx(3 * toys.MFLOP * 1e-6)
    assert [part.verdict for part in row.parts] == ["holds", "holds"]


def test_what_was_interrupted_goes_on_and_nothing_runs_twice(tmp_path, ran):
    def interrupted(step):
        if step.index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(toys.CLAIM, 4, store=tmp_path, on_step=interrupted)
    row = verify(toys.CLAIM, 4, store=tmp_path)
    assert ran == [0, 1, 2, 3]
    ran.clear()
    assert verify(toys.CLAIM, 4, store=tmp_path) == row
    assert ran == []
    assert replace(row, date="", minutes=0) == replace(verify(toys.CLAIM, 4), date="", minutes=0)  # as if never interrupted


def test_a_seed_draws_the_same_whatever_ran_before(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    verify(toys.CLAIM, 3, store=tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    for file in (tmp_path / "toy").glob("*-[01].json"):
        file.unlink()
    torch.rand(7)
    assert verify(toys.CLAIM, 3, store=tmp_path).parts == verify(toys.CLAIM, 3).parts


def test_a_changed_source_runs_again(tmp_path, ran, monkeypatch):
    verify(toys.CLAIM, store=tmp_path)
    monkeypatch.setattr(runner, "source_hash", lambda claim: "f" * 64)
    assert verify(toys.CLAIM, store=tmp_path).source == "f" * 64
    assert ran == [0, 1, 2, 0, 1, 2]


def test_exchanged_pieces_are_never_kept(tmp_path, ran):
    broken = replace(toys.CLAIM, effect=lambda seed: -1.0)
    assert verify(broken, store=tmp_path).verdict == "fails"
    assert list(tmp_path.iterdir()) == []
    assert verify(toys.CLAIM, store=tmp_path).verdict == "holds"


def test_a_seed_over_budget_stops_and_is_not_tried_again_with_as_little(tmp_path, ran):
    row = verify(toys.CLAIM, budget=3e-6, store=tmp_path)
    assert (row.verdict, row.seeds, ran) == ("undecided", 1, [0, 1])
    assert row.note == "stopped in seed 1: more than 3e-06 TFLOP, use a larger --budget"
    assert verify(toys.CLAIM, budget=3e-6, store=tmp_path) == row
    assert ran == [0, 1]
    assert verify(toys.CLAIM, budget=7e-6, store=tmp_path).verdict == "holds"
    assert ran == [0, 1, 1, 2]


def test_what_lacked_a_model_runs_again_once_it_is_there(tmp_path, ran, monkeypatch):
    with monkeypatch.context() as without:
        without.setattr(toys.Toy, "run", lambda self, seed: dict.fromkeys("AB", Effect.missing("needs world-classes")))
        row = verify(toys.CLAIM, store=tmp_path)
        assert (row.verdict, row.complete, row.parts[0].note) == ("undecided", False, "needs world-classes")
    row = verify(toys.CLAIM, store=tmp_path)
    assert (row.verdict, row.complete, ran) == ("holds", True, [0, 1, 2])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_is_an_error_in_one_line(tmp_path, bad):
    claim = replace(toys.CLAIM, effect=lambda seed: bad if seed == 1 else 1.0)
    with pytest.raises(FloatingPointError, match=f"toy, part A, seed 1: the effect is {bad}, not a number"):
        verify(claim, store=tmp_path)


def test_a_part_that_was_forgotten_is_our_own_mistake(monkeypatch):
    monkeypatch.setattr(toys.Toy, "run", lambda self, seed: {})
    with pytest.raises(AssertionError, match="toy left out \\['A', 'B'\\]"):
        verify(toys.CLAIM)


def test_steps_are_told():
    seen = []
    verify(toys.CLAIM, 2, on_step=lambda step: seen.append((step.index, step.n)))
    assert seen == [(0, 2), (1, 2)]


# --- the meter ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_flops_are_those_of_convolutions_and_products(mode):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 5))
    with Meter(1.0) as meter, mode():
        y = network(torch.ones(2, 3, 8, 8))
        if torch.is_grad_enabled():
            y.sum().backward()
    convolution, product = 2 * (2 * 8 * 36 * 27), 2 * (2 * 8 * 36 * 5)
    backward = convolution + 2 * product if mode is torch.enable_grad else 0  # no gradient of the picture itself
    assert round(meter.tflop * 1e12) == convolution + product + backward


def test_attention_on_a_processor_is_counted():
    q, k = torch.rand(2, 4, 10, 8, requires_grad=True), torch.rand(2, 4, 6, 8, requires_grad=True)
    with Meter(1.0) as meter:
        y = torch.nn.functional.scaled_dot_product_attention(q, k, k)
        forward = meter.tflop * 1e12
        y.sum().backward()
    assert round(forward) == 2 * (2 * 2 * 4 * 10 * 6 * 8)  # two products of 10 x 6 x 8 for 8 heads
    assert round(meter.tflop * 1e12 - forward) == 5 * (2 * 2 * 4 * 10 * 6 * 8)  # five backward


def test_the_limit_stops_within_the_operation_that_passes_it():
    x = torch.ones(100, 100)
    with Meter(3e-6) as meter:
        x @ x
        with pytest.raises(OverBudget):
            x @ x
    assert meter.tflop == pytest.approx(4e-6)


# --- what a number depends on ---------------------------------------------------------------------


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A house of four modules; of a, what another names reaches b, that c inside a function, and d its type checker alone."""
    rooms = {
        "a": "from diorama.room.b import f, idle\nfrom diorama.room import b as alias\nX = f\nY = idle\nW = alias",
        "room/b": """
import torch
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from diorama.d import T
def f() -> T:
    from diorama.c import g
    return g(K)
K = 1  # as told
def idle():
    "Does nothing."
class Other:
    size = 2
torch.manual_seed(0)
""",
        "c": "def g(k):\n    return k\n\ndef h():\n    return 0",
        "d": "T = int",
        "room/__init__": "",
    }
    for name, text in rooms.items():
        path = tmp_path / "diorama" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(sources, "HOUSE", tmp_path)
    return tmp_path / "diorama"


def reached(house, name):
    """module.name of every definition behind this one of a."""
    return {f"{place.file.stem}.{place.name}" for place in sources.definitions([sources.Place(house / "a.py", name)])}


def test_what_a_definition_names_is_followed_however_far_down(house):
    always = {"a.", "b.", "b.torch"}  # what runs when they are imported
    assert reached(house, "Y") == {"a.Y", "a.idle", "b.idle"} | always
    assert reached(house, "X") == {"a.X", "a.f", "b.f", "b.K", "c.g", "c."} | always
    assert {"b.Other", "b.idle", "c.g"} <= reached(house, "W")  # a module by its name: all of it
    assert reached(house, "*") >= reached(house, "W") | reached(house, "X")


@pytest.fixture
def hash_of(house, monkeypatch):
    """The hash of a claim whose module is a, after some text in it or in another was exchanged."""
    monkeypatch.setattr(toys, "__file__", str(house / "a.py"))
    (house / "a.py").write_text("from diorama.room.b import f\nX = f")

    def changed(name="a", old="", new=""):
        path = house / f"{name}.py"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1) if old else text)
        sources._parsed.cache_clear()  # written twice within a tick of the clock
        found = sources.source_hash(toys.CLAIM)
        path.write_text(text)
        sources._parsed.cache_clear()
        return found

    return changed


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("room/b", "K = 1", "K = 2"),
        ("room/b", "manual_seed(0)", "manual_seed(1)"),  # runs on import
        ("c", "return k", "return -k"),
        ("a", "X = f", "X = f()"),
        ("room/b", "import g\n", "import h as g\n"),
    ],
)
def test_another_definition_behind_the_claim_is_another_hash(hash_of, name, old, new):
    assert hash_of(name, old, new) != hash_of()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("room/b", "  # as told", "  # as it were"),
        ("room/b", "size = 2", "size = 3"),
        ("room/b", "    return g", '    "It does."\n\n    return g'),
        ("c", "return 0", "return 1"),
        ("d", "int", "float"),
    ],
)
def test_what_it_does_not_name_and_what_is_said_of_it_are_none(hash_of, name, old, new):
    assert hash_of(name, old, new) == hash_of()


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Where the house's models lie, with none there yet; the toy claim stands on a model that stands on another."""
    monkeypatch.setattr(sources, "asset", lambda name: tmp_path / name)
    monkeypatch.setattr(toys.Toy, "assets", ("world-video",))
    return tmp_path


@pytest.mark.parametrize("name", ["world-video", "world-flow"])
def test_other_weights_are_another_hash(shipped, name):
    (shipped / name).mkdir()
    hashes = {sources.source_hash(toys.CLAIM)}
    for weights in (b"1", b"2"):
        (shipped / name / "model.safetensors").write_bytes(weights)
        hashes.add(sources.source_hash(toys.CLAIM))
    assert len(hashes) == 3


@pytest.mark.parametrize("name", ["world-video", "world-flow"])
def test_of_a_model_that_is_not_shipped_its_plan_counts(shipped, name, monkeypatch):
    first = sources.source_hash(toys.CLAIM)
    monkeypatch.setattr(sources, "PLANS", {**PLANS, name: replace(PLANS[name], steps=7)})
    assert sources.source_hash(toys.CLAIM) != first


def test_a_claim_of_the_house_depends_on_its_parts_and_not_on_the_harness():
    from diorama.claims.samplers import CLAIM

    found = sources.definitions([sources.Place(sources.HOUSE / "diorama" / "claims" / "samplers.py")])
    names = {f"{place.file.stem}.{place.name}" for place in found}
    assert {"solvers.dpmpp_2m", "levels.karras", "frechet.kernel_distance", "types.Noise", "unet.UNet"} <= names
    assert not {"runner", "verdict", "scoreboard", "cli", "plans"} & {name.partition(".")[0] for name in names}
    assert not {"cards", "models", "files", "errors"} & {place.file.stem for place in found}  # another card is no other number
    assert len(sources.source_hash(CLAIM)) == 64
