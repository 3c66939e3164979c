"""The pool has the faults it says, and a retriever that prefers them makes the claim fail."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import ImageChops

from diorama.claims import foodfusion
from diorama.claims.foodfusion import CLAIM, FAULTS, Experiment, Pool
from diorama.claims.verdict import judge
from diorama.data.curate import Limits
from diorama.worlds.captions import parse


def test_the_pool_has_every_fault_in_its_share_and_is_a_function_of_its_seed():
    pool, n = Pool(3, 4000), 4000
    for name, share in FAULTS.items():
        assert sum(name in fault for fault in pool.faults) / n == pytest.approx(share, abs=4 * (share * (1 - share) / n) ** 0.5)
    assert pool.faults == Pool(3, n).faults != Pool(4, n).faults


def test_faults_are_what_they_are_called():
    pool = Pool(3, 200)
    shaded, drawn = pool.worlds
    for i, fault in enumerate(pool.faults[:60]):
        said, own = pool.record(i)["text"], pool.record(i)["text"] if fault else shaded.record(i)["text"]
        if fault in ("", "wrong", "more"):
            assert not ImageChops.difference(pool.read(i).image, shaded.read(i).image).getbbox()
        if fault == "drawing":
            assert drawn.scene(i).style != "shaded" == shaded.scene(i).style
            assert pool.read(i).image.tobytes() == drawn.read(i).image.tobytes()
        if fault == "more":
            assert said.startswith(f"{shaded.record(i)['text']} and ")
        if fault == "repeated":
            assert any(pool.read(i).image.tobytes() == pool.read(j).image.tobytes() for j in range(i))
        if not fault:
            assert said == own
            assert parse(said)


@dataclass
class Shares(Experiment):
    """Instead of training: the share of sound pictures takes the place of what was learned."""

    def taught(self, data):
        sound = float(np.mean([not data.source.faults[i] for i in data.indices]))
        return 1 - sound, sound, len(set(data.indices)) / len(data.source)


class Sized:
    """Stands for a clip."""

    class image:
        class config:
            size = 16


def by_length(sign):
    """A retriever that knows nothing but how long a caption is: captions that name too much are long."""
    return lambda clip, unlike: lambda image, texts: sign * torch.tensor([float(len(text)) for text in texts])


def effects(**pieces):
    return Shares(replace(CLAIM, pool=160, **pieces), 0, None, Sized(), None).effects()


def test_a_retriever_that_prefers_faults_fails():
    good, broken = effects(fits=by_length(-1)), effects(fits=by_length(1))
    assert good["A"].value > 0 > broken["A"].value
    assert judge(CLAIM.parts[0], [broken["A"]] * 3).verdict == "fails"


def test_masks_that_drop_nothing_change_nothing():
    found = effects(limits=Limits(worst=0.0, shown=0.0, least_area=0.0, alike=0.0), fits=by_length(1))
    assert found["B2"].value == 0  # equal pictures still go, from either


def test_without_its_models_it_says_what_to_run(monkeypatch):
    monkeypatch.setattr("diorama.claims.claim.folder_of", lambda name: None)
    found = foodfusion.CLAIM.run(0)
    assert {effect.note for effect in found.values()} == {"needs world-flow: run diorama foundations world-flow first"}
