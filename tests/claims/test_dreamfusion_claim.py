"""The judge knows a true solid when it sees one; the parts are judged the right way round; every arm can be run."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from diorama.claims import dreamfusion
from diorama.claims.dreamfusion import CLAIM, READ, Experiment, Judged, Read
from diorama.claims.runner import verify
from diorama.foundations.registry import find
from diorama.scenes.fields import VoxelConfig, VoxelField
from diorama.systems.images.flow import Flow
from diorama.systems.scenes.dreamfusion import HALF, MIDDLE, DreamFusion
from diorama.train import Parts
from diorama.types import Noise
from diorama.worlds.scene import COLOURS
from diorama.worlds.space import BUILDS, solids
from diorama.worlds.view_oracle import statue

FINE = VoxelConfig(side=40, middle=MIDDLE, half=HALF, samples=48)


@pytest.fixture(scope="module")
def experiment():
    return Experiment(CLAIM, 0, None)


def solid(shape, colour, faces=(1,)):
    """The true solid as a field of voxels, with its face on the front (1), the back (-1), or both."""
    things, scene = solids([made := statue(shape, colour)]), DreamFusion(VoxelField(FINE))
    line = torch.linspace(-HALF, HALF, FINE.side)
    z, y, x = (axis.flatten() for axis in torch.meshgrid(line, line, line, indexing="ij"))
    row, radius = torch.zeros(len(x), dtype=torch.int64), made.things[0].radius
    places = torch.stack([x, y, z]) / radius
    right, below, wide = BUILDS[shape].mark
    off = torch.hypot(places[0] - right, -places[2] - below) / wide
    rgb = torch.tensor(COLOURS[colour])[:, None].expand(3, len(x)).clone()
    for side in faces:
        front = (off < 1) & (side * places[1] < 0)
        rgb[:, front] = torch.where(off < 0.5, 0.02, 0.97)[front].expand(3, -1)
    with torch.no_grad():
        scene.scene.grid[0, 0] = (-200 * things.distance(row, places) + 1).reshape(FINE.side, FINE.side, FINE.side)
        scene.scene.grid[0, 1:] = rgb.clamp(0.01, 0.99).logit().reshape(3, FINE.side, FINE.side, FINE.side)
    return scene


@pytest.mark.parametrize(("shape", "colour"), [("circle", "red"), ("square", "green"), ("triangle", "blue"), ("star", "purple")])
def test_a_true_solid_is_known_from_all_sides(experiment, shape, colour):
    judged = experiment.judged(solid(shape, colour), colour, shape)
    assert judged.kinds > 0.9 and judged.outlines > 0.9
    assert judged.consistency > 0.9 and judged.faces == 1
    wrong = experiment.judged(solid(shape, colour), "yellow", shape)
    assert wrong.kinds == 0 and wrong.outlines == judged.outlines


def test_two_faces_and_none_are_told_from_one(experiment):
    two, none = (experiment.judged(solid("square", "red", faces), "red", "square") for faces in ((1, -1), ()))
    assert two.consistency < 0.85 and two.faces == 2
    assert none.consistency == 0.5 and none.faces == 0


def test_a_sentence_names_what_the_painter_knows(experiment):
    for seed in range(4):
        asked = replace(experiment, seed=seed).asked
        assert len({shape for _, shape in asked}) == 2
        assert all(pair in experiment.source.rules.pairs for pair in asked)
    assert experiment.asked == Experiment(CLAIM, 0, None).asked


FOUND = {  # in a world where the paper is right
    "distilled": [Judged(0.9, 0.9, 0.95, 1.0)],
    "read": [Judged(0.3, 0.4, 0.6, 3.0)],
    "no view words": [Judged(0.9, 0.9, 0.7, 2.0)],
    "through": [Judged(0.4, 0.5, 0.6, 1.0)],
}


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({}, set()),
        ({"read": [Judged(0.8, 0.4, 0.6, 1.0)]}, {"A1"}),
        ({"read": [Judged(0.3, 0.8, 0.6, 1.0)]}, {"A2"}),
        ({"no view words": [Judged(0.9, 0.9, 0.9, 1.0)]}, {"B"}),
        ({"through": [Judged(0.9, 0.9, 0.9, 1.0)]}, {"C"}),
    ],
)
def test_each_part_fails_for_its_own_reason(monkeypatch, change, failing):
    monkeypatch.setattr(Experiment, "arms", lambda self: FOUND | change)
    monkeypatch.setattr(dreamfusion, "model_folder", lambda name: None)
    monkeypatch.setattr(Flow, "from_pretrained", lambda folder: None)
    assert {part.letter for part in verify(CLAIM).parts if part.verdict == "fails"} == failing


def test_every_arm_can_be_run(monkeypatch, experiment):
    monkeypatch.setattr(dreamfusion, "PROMPTS", 1)
    monkeypatch.setattr(Parts, "WORDS_FROM", 40)
    torch.manual_seed(0)
    painter = Flow.new(preset="nano", size=32, labels=(), part=Parts((), experiment.source))
    quick = replace(CLAIM, plan=replace(CLAIM.plan, steps=1), reader=replace(CLAIM.reader, steps=1, batch=4))
    found = Experiment(quick, 0, painter).arms()
    assert list(found) == list(FOUND)
    assert all(len(judged) == 1 for judged in found.values())


def test_the_reader_pulls_towards_the_sentence_of_each_view_and_as_hard_at_all():
    """A reader that sees how bright each third of a picture is."""
    system = Read(VoxelField(FINE))
    system.sentences = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]])
    system.reader = [SimpleNamespace(encode_image=lambda image: image.unflatten(2, (3, 4)).square().mean((1, 3, 4)))]
    picture = torch.rand(2, 3, 12, 12, requires_grad=True)
    system.pull(picture, torch.tensor([0.0, 180.0]), torch.zeros(2), Noise([0, 1])).sum().backward()
    torch.testing.assert_close(picture.grad.flatten(1).norm(dim=1), torch.full((2,), READ))
    where = -picture.grad.mean(1).unflatten(1, (3, 4)).sum((2, 3))  # brighter above from the front, below from behind
    assert where.argmax(1).tolist() == [0, 2]


def test_without_its_model_nothing_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("diorama.foundations.registry.asset", lambda name: tmp_path / "assets" / name)
    row = verify(CLAIM)
    assert row.verdict == "undecided"
    assert all(dreamfusion.MODEL in part.note for part in row.parts)


def test_the_model_is_a_flow_of_views():
    assert find(dreamfusion.MODEL).around and find(dreamfusion.MODEL).system == "flow"
