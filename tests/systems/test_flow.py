import json

import pytest
import tiny
import torch

from diorama.errors import UserError
from diorama.processes.levels import LogitNormal
from diorama.systems.base import load_system
from diorama.systems.images.autoencoder import Autoencoder
from diorama.systems.images.flow import Flow
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Batch, Noise

TEXTS = ["a red square", "a blue round thing", ""]


@pytest.fixture(scope="module")
def flow():
    return tiny.flow().eval()


def batch(n=3):
    image = Noise(range(n)).uniform(4, 16, 16) * 2 - 1
    return Batch(image, TEXTS[:n], torch.tensor([0, 1, -1][:n]))


def test_the_loss_is_one_number_a_sample(flow):
    loss = flow.loss(batch(), Noise([0, 1, 2]))
    assert loss.shape == (3,)
    alone = [flow.loss(Batch(batch().image[i : i + 1], TEXTS[i : i + 1], batch().label[i : i + 1]), Noise([i])) for i in range(3)]
    assert torch.allclose(loss, torch.cat(alone), rtol=1e-3)


def test_what_was_encoded_before_gives_the_same_loss(flow):
    encoded = flow.encode(batch())
    cached = Batch(encoded.image.new_zeros(0), (), encoded.label, encoded.latent, encoded.embedding)
    assert torch.equal(flow.loss(cached, Noise([0, 1, 2])), flow.loss(batch(), Noise([0, 1, 2])))


def test_only_the_network_is_trained():
    flow = tiny.flow()
    trained = {name.partition(".")[0] for name, p in flow.named_parameters() if p.requires_grad}
    assert trained == {"network"}
    assert [len(phase.parameters) for phase in flow.phases()] == [len(list(flow.network.parameters()))]


def test_an_untrained_flow_has_the_loss_of_knowing_nothing():
    """A network that says 0 is wrong by the target itself: noise - latent."""
    flow = tiny.flow()
    torch.nn.init.zeros_(flow.network.outlet[-1].weight)
    torch.nn.init.zeros_(flow.network.outlet[-1].bias)
    loss = flow.loss(batch(), Noise([0, 1, 2]))
    noise = Noise([0, 1, 2])
    noise.uniform(), noise.uniform(), LogitNormal(0.0, 1.0)(noise)  # dropped fields and level
    expected = (noise.normal(4, 4, 4) - flow.encode(batch()).latent).square().mean((1, 2, 3))
    assert torch.allclose(loss, expected, rtol=1e-3)


def test_a_picture_is_the_same_alone_and_in_a_batch(flow):
    together = flow.sample(TEXTS, ["flat", None, "solid"], steps=3, noise=Noise([7, 8, 9]))
    assert together.shape == (3, 4, 16, 16)
    assert together.abs().max() <= 1
    for i, (text, style) in enumerate(zip(TEXTS, ["flat", None, "solid"], strict=True)):
        alone = flow.sample([text], [style], steps=3, noise=Noise([7 + i]))
        assert torch.allclose(alone[0], together[i], atol=1 / 255)


@pytest.mark.parametrize("change", [{"guidance": 1.0}, {"negative": ["a round thing"] * 2}, {"solver": "heun"}, {"steps": 5}])
def test_every_wish_changes_the_picture(flow, change):
    base = flow.sample(TEXTS[:2], steps=3, noise=Noise([0, 1]))
    assert not torch.equal(flow.sample(TEXTS[:2], noise=Noise([0, 1]), **{"steps": 3, **change}), base)


def test_each_step_can_be_looked_at(flow):
    steps = []
    flow.sample(TEXTS[:1], steps=3, noise=Noise([0]), on_step=steps.append)
    assert [step.index for step in steps] == [0, 1, 2]
    assert flow.preview(steps[-1].x0).shape == (1, 4, 16, 16)


def test_it_learns():
    flow, data = tiny.flow(), batch()
    plan = Plan(steps=60, lr=3e-3, warmup=5, ema=0.9, log_every=1, device="cpu", dtype="float32")
    losses = fit(flow, lambda step, rank, world: data, plan).losses
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_saved_and_loaded_it_is_the_same(flow, tmp_path, storage):
    flow.save_pretrained(tmp_path / "flow", storage, name="toy")
    again = load_system(tmp_path / "flow")
    assert isinstance(again, Flow)
    assert (again.styles, again.size, again.training) == (tiny.STYLES, 16, False)
    drawn = [system.sample(TEXTS, steps=2, noise=Noise([0, 1, 2])) for system in (flow, again)]
    if storage == "float32":
        assert torch.equal(*drawn)
    kinds = {path.suffix for path in (tmp_path / "flow").rglob("*") if path.is_file()}
    assert kinds == {".json", ".safetensors"}  # no pickle
    index = json.loads((tmp_path / "flow" / "model_index.json").read_text())
    assert (index["system"], index["name"], index["network"]) == ("flow", "toy", ["diorama", "UNet"])


def test_an_autoencoder_returns_too(tmp_path):
    Autoencoder(tiny.codec(), kl_weight=0.5).save_pretrained(tmp_path / "codec")
    assert load_system(tmp_path / "codec").kl_weight == 0.5


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"format_version": 9}, "format_version 9, this diorama reads up to 1: update diorama"),
        ({"format_version": None}, "update diorama"),
        ({"system": "flew"}, "did you mean flow"),
        ({"settings": {"sise": 3}}, "unknown setting sise"),
    ],
)
def test_an_index_that_does_not_fit_is_told_in_one_line(flow, tmp_path, change, line):
    flow.save_pretrained(tmp_path / "flow")
    index = tmp_path / "flow" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | change))
    with pytest.raises(UserError, match=line) as caught:
        load_system(tmp_path / "flow")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["network/model.safetensors", "codec/config.json", "text/tokenizer.json", "model_index.json"])
def test_a_missing_file_is_told_in_one_line(flow, tmp_path, name):
    flow.save_pretrained(tmp_path / "flow")
    (tmp_path / "flow" / name).unlink()
    with pytest.raises(UserError) as caught:
        load_system(tmp_path / "flow")
    assert "\n" not in str(caught.value)
