from dataclasses import replace

import numpy as np
import pytest
import torch

from diorama.errors import UserError
from diorama.types import Noise
from diorama.worlds.points import EARTH, RETURNS, Beams, scan
from diorama.worlds.scene import Ground, scene
from diorama.worlds.space import GROUND, NOTHING, solids

MANY = [scene(3, i) for i in range(41, 47)]


@pytest.fixture(scope="module")
def found():
    return scan(MANY)


def test_points_lie_on_the_things_they_name(found):
    things = solids(MANY)
    for row, (b, k) in enumerate(zip(things.scene.tolist(), things.thing.tolist(), strict=True)):
        points = found.points[b, found.thing[b] == k]
        distance = things.distance(torch.full((len(points),), row), things.places(torch.full((len(points),), row), points.T))
        assert float(distance.abs().max()) < 5e-3  # radii
        assert len(points) > 5
    ground = found.points[found.thing == GROUND]
    assert float(ground[:, 2].abs().max()) < 1e-5


def test_beams_go_where_the_pattern_says():
    beams = Beams(azimuths=(0.0, 90.0, 2), elevations=(-45.0, 0.0, 2), place=(0.0, -3.0, 1.0))
    seen = scan([MANY[0].without(0).without(0)], beams=beams)
    torch.testing.assert_close(seen.points[0, :2], torch.tensor([[0.0, -2.0, 0.0], [1.0, -3.0, 0.0]]), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.distance[0, :2], torch.full((2,), 2**0.5))
    torch.testing.assert_close(seen.reflectivity[0, :2], torch.full((2,), EARTH * 0.5**0.5))
    assert seen.thing[0].tolist() == [GROUND, GROUND, NOTHING, NOTHING]
    assert bool(seen.distance[0, 2:].isinf().all())


def test_what_is_beyond_the_reach_is_lost(found):
    short = scan(MANY, beams=Beams(reach=1.2))
    near = found.distance <= 1.2
    assert torch.equal(short.thing, torch.where(near, found.thing, NOTHING))
    assert bool(near.any()) and not bool(near.all())


def test_an_error_moves_points_along_their_beams_and_each_scene_has_its_own():
    noise = Noise(range(6))
    noisy, exact = scan(MANY, noise, Beams(error=0.02)), scan(MANY)
    off = (noisy.distance - exact.distance)[exact.distance.isfinite()]
    assert abs(float(off.std()) - 0.02) < 0.002 and abs(float(off.mean())) < 0.001
    torch.testing.assert_close(
        (noisy.points - exact.points).norm(dim=-1)[exact.distance.isfinite()], off.abs(), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(scan(MANY[2:3], Noise([2]), Beams(error=0.02)).points[0], noisy.points[2], atol=1e-5, rtol=0)


def test_reflectivity_tells_materials_and_not_colours():
    one = MANY[2].things[0]
    made = {m: replace(MANY[2], things=(replace(one, material=m, colour=c),)) for m, c in (("matte", "red"), ("metal", "blue"))}
    matte, metal = scan([made["matte"], made["metal"]]).reflectivity
    on = scan([made["matte"]]).thing[0] == 0
    torch.testing.assert_close(metal[on] / matte[on], torch.full((int(on.sum()),), RETURNS["metal"] / RETURNS["matte"]))
    assert float(metal.max()) <= 1


def test_the_array_holds_the_returns(found):
    array = found.array(1)
    back = found.thing[1] != NOTHING
    assert len(array) == int(back.sum())
    assert np.array_equal(array["x"], found.points[1, back, 0].numpy())
    assert np.array_equal(array["thing"], found.thing[1, back].numpy())


def test_impossible_scans_are_told():
    with pytest.raises(UserError, match="no scene"):
        scan([])
    with pytest.raises(UserError, match="needs noise"):
        scan(MANY[:1], beams=Beams(error=0.1))
    with pytest.raises(UserError, match="0 x 4 beams"):
        Beams(azimuths=(0.0, 1.0, 0), elevations=(0.0, 1.0, 4))
    with pytest.raises(UserError, match="reach 0"):
        Beams(reach=0)
    with pytest.raises(UserError, match="inside thing 0"):
        scan(MANY[2:3], beams=Beams(place=tuple(solids(MANY[2:3]).centre[0].tolist())))
    with pytest.raises(UserError, match="below the ground"):
        scan([replace(MANY[0], ground=Ground(kind="plain", tone="grey"))], beams=Beams(place=(0.0, 0.0, -1.0)))
