import json

import pytest
import tiny
import torch
from torch import nn

from diorama.errors import UserError
from diorama.networks.lora import Adapter, LoRA, unwrap, wrap
from diorama.networks.unet import UNet
from diorama.storage import read_tensors, write_tensors
from diorama.types import Condition, Noise, TextEmbedding

LAYERS, LAYER = r"(down|middle|up)\..+", "middle.residual.conv1"


@pytest.fixture
def network():
    return tiny.unet().eval()


def told(network: UNet, seed: int = 0) -> torch.Tensor:
    noise = Noise([seed, seed + 1])
    text = TextEmbedding(noise.normal(3, 16), torch.ones(2, 3, dtype=torch.bool), noise.normal(16))
    with torch.no_grad():
        return network(noise.normal(4, 8, 8), torch.tensor([0.3, 0.6]), Condition(text=text))


def taught(network: UNet, seed: int = 1, rank: int = 2) -> UNet:
    """With LoRAs that learned something."""
    wrap(network, LAYERS, rank)
    for name, weight in network.named_parameters():
        if "lora_B" in name:
            weight.data = 0.1 * Noise([seed + len(name)]).normal(*weight.shape)[0]
    return network


def test_at_first_it_changes_nothing_and_only_it_learns(network):
    before, n = told(network), sum(p.numel() for p in network.parameters())
    wrap(network, LAYERS, 2)
    assert torch.equal(told(network), before)
    learning = {name: p.numel() for name, p in network.named_parameters() if p.requires_grad}
    assert learning
    assert all(".lora_" in name and not name.startswith(("inlet", "outlet")) for name in learning)
    assert sum(learning.values()) < n / 2


def test_merged_it_computes_the_same_and_comes_out_bit_for_bit(network):
    before, weights = told(network), tiny.weights(network)
    with_it = told(taught(network))
    assert not torch.allclose(with_it, before, atol=0.01)
    adapter = unwrap(network)
    assert torch.equal(told(network), before)
    restore = adapter.merge(network)
    assert torch.allclose(told(network), with_it, atol=1e-4)
    restore()
    assert torch.equal(tiny.weights(network), weights)


def test_several_add_up_each_by_its_own_strength(network):
    first, second = unwrap(taught(network, 1)), unwrap(taught(network, 2, rank=3))
    weight = network.get_submodule(LAYER).weight
    before = weight.detach().clone()
    first.merge(network, 0.5), second.merge(network, -2.0), first.merge(network, 0.0)
    assert torch.allclose(weight - before, 0.5 * first.deltas[LAYER] - 2 * second.deltas[LAYER], atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(6, 5), nn.Conv1d(6, 5, 3, padding=1), nn.Conv2d(6, 5, 3, stride=2, padding=1), nn.Conv3d(6, 5, 1, bias=False)],
    ids=lambda layer: type(layer).__name__,
)
def test_any_layer_on_any_number_of_axes(layer):
    axes = layer.weight.ndim - 2
    x = Noise([0, 1]).normal(6, *[6] * axes)
    beside = LoRA(layer, 2)
    nn.init.normal_(beside.lora_B.weight)
    expected = beside(x)
    model = nn.Sequential(beside)
    unwrap(model).merge(model)
    assert model[0] is layer
    assert torch.allclose(model(x), expected, atol=1e-4)


def test_saved_as_peft_has_it_and_read_again(network, tmp_path):
    adapter = unwrap(taught(network))
    adapter.save(tmp_path / "adapter", base="tiny", sentence="a sks thing")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == ("LORA", 2, 2, "tiny")
    tensors = read_tensors(tmp_path / "adapter" / "adapter_model.safetensors")[1]
    assert tensors["base_model.model.middle.residual.conv1.lora_A.weight"].shape == (2, 32, 3, 3)
    assert tensors["base_model.model.middle.residual.conv1.lora_B.weight"].shape == (32, 2, 1, 1)
    again = Adapter.read(tmp_path / "adapter")
    assert again.deltas.keys() == adapter.deltas.keys()
    assert all(torch.equal(again.deltas[name], adapter.deltas[name]) for name in adapter.deltas)


def test_what_others_saved_counts_alpha_over_rank(network, tmp_path):
    adapter = unwrap(taught(network))
    adapter.save(tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_alpha": 16}))
    assert torch.allclose(Adapter.read(tmp_path / "adapter").deltas[LAYER], 8 * adapter.deltas[LAYER], rtol=1e-5)


@pytest.mark.parametrize("odd", ["missing", "more", "narrow", "number"])
def test_a_strangers_file_is_checked(network, tmp_path, odd):
    unwrap(taught(network)).save(tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    sides = read_tensors(path)[1]
    key = f"base_model.model.{LAYER}.lora_B.weight"
    sides |= {
        "missing": {},
        "more": {"bias": torch.zeros(2)},
        "narrow": {key: sides[key][:, :1]},
        "number": {key: torch.zeros(())},
    }[odd]
    if odd == "missing":
        del sides[key]
    write_tensors(path, sides)
    with pytest.raises(UserError, match="holds no LoRA adapter that diorama knows"):
        Adapter.read(tmp_path / "adapter")


def test_what_does_not_fit_is_told_in_one_line(network, tmp_path):
    adapter = unwrap(taught(network))
    with pytest.raises(UserError, match="does not fit the model .no layer "):
        adapter.merge(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(UserError, match=r"does not fit the model \(\(48, 16"):
        adapter.merge(tiny.unet(widths=(16, 48)))
    with pytest.raises(UserError, match="rank 0 is not allowed"):
        wrap(network, LAYERS, 0)
    adapter.save(tmp_path / "adapter")
    for config, line in (
        ('{"peft_type": "IA3"}', "holds no LoRA adapter"),
        ('{"peft_type": "LORA", "r": 0}', "r 0 and lora_alpha 0"),
    ):
        (tmp_path / "adapter" / "adapter_config.json").write_text(config)
        with pytest.raises(UserError, match=line):
            Adapter.read(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match="is not there"):
        Adapter.read(tmp_path / "adapter")
