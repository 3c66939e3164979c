import json

import pytest
import tiny
import torch

from diorama.errors import UserError
from diorama.guidance.classifier_free import classifier_free
from diorama.networks.lora import Adapter, told_of
from diorama.processes.solvers import SOLVERS
from diorama.systems.images.few_step import FewStep
from diorama.systems.images.flow import Flow
from diorama.systems.images.glide import Glide
from diorama.systems.images.kandinsky3 import Kandinsky3
from diorama.systems.images.ldm import LatentDiffusion
from diorama.training.plan import Plan
from diorama.types import Noise, mix

ASKED = [("a red square", "flat"), ("a blue thing", None), ("a round thing", "solid")]
PLAN = Plan(steps=6, batch=4, lr=2e-2, warmup=2, ema=0.5, weight_decay=0.0, device="cpu", dtype="float32")
HOW = {"steps": 6, "guidance": 3.0, "solver": "dpmpp_2m"}


def painter() -> Flow:
    return tiny.flow().eval()


def student(rank: int = 2) -> FewStep:
    torch.manual_seed(0)
    return FewStep(painter(), steps=2, rank=rank).eval()


def few(painter: Flow, **options) -> torch.Tensor:
    prompts, styles = zip(*ASKED, strict=True)
    return painter.sample(prompts, styles, noise=Noise(range(3)), **{"steps": 2, "guidance": 1.0, **options})


def test_before_it_learns_it_paints_as_it_did():
    assert torch.equal(few(student().painter), few(painter()))


def test_it_walks_its_own_guided_way():
    rows, model = student().walked(ASKED, Noise([4, 5, 6]), **HOW), painter()
    condition = model.condition(*zip(*ASKED, strict=True))
    assert torch.equal(rows["label"], condition.label)
    assert rows["path"].shape == (3, 3, 4, 4, 4)
    levels, guided = model.levels(6), classifier_free(model.denoiser, 3.0)
    for at, until in enumerate((1, 4, 7)):
        x = SOLVERS["dpmpp_2m"](guided, model.start(Noise([4, 5, 6])), condition, levels[:until], Noise([0, 0, 0]))
        y = x / (1 + levels[until - 1])
        assert torch.allclose(rows["path"][:, at].float(), y, rtol=0, atol=1e-3 * y.abs().max().item())


def test_where_its_levels_do_not_meet_it_walks_the_next_number_of_steps_that_do():
    """Latent Diffusion's levels are a table's: ten steps, and not nine, stand wherever four do."""
    torch.manual_seed(0)
    system = FewStep(LatentDiffusion(tiny.codec(), tiny.sentence_encoder(), tiny.unet(), tiny.STYLES, 16), rank=1).eval()
    nine, ten = (system.walked(ASKED, Noise([0, 1, 2]), steps=n)["path"] for n in (9, 10))
    assert torch.equal(nine, ten)


@pytest.mark.parametrize("teller", [Glide, Kandinsky3])
def test_who_tells_the_noise_from_far_off_is_refused(teller):
    own = tiny.codec(), tiny.sentence_encoder(), tiny.unet(), (), 16
    with pytest.raises(UserError, match="tells the noise from sigma 20,291 on, where its clean picture is 20,291 times as wrong"):
        FewStep(teller(*own))


def test_every_path_is_that_of_its_own_seed_and_all_are_asked_around():
    plan = Plan(**{**vars(PLAN), "seed": 3})
    system = student()
    paths = system.paths(ASKED, plan, **HOW).rows["path"]
    alone = system.walked(ASKED[2:], Noise([mix(3, 2)]), **HOW)["path"]
    assert torch.allclose(paths[2:].float(), alone.float(), atol=1e-2)


def test_it_learns_to_get_there_in_a_few_steps():
    prompts, styles = zip(*ASKED, strict=True)
    many = painter().sample(prompts, styles, noise=Noise(range(3)), **HOW)
    system = student(rank=8)
    before = (few(system.painter) - many).square().mean()
    system.learn(ASKED, Plan(**{**vars(PLAN), "steps": 30}), 12, **HOW)
    assert (few(system.painter) - many).square().mean() < 0.7 * before


def test_only_the_adapter_learns_and_is_saved_with_its_steps(tmp_path):
    system = student()
    system.learn(ASKED, Plan(**{**vars(PLAN), "steps": 3}), 5, **HOW)
    system.save_pretrained(tmp_path / "fast", base="tiny")
    plain = painter()
    kept = {name.replace(".base.", "."): value for name, value in system.painter.state_dict().items() if ".lora_" not in name}
    assert all(torch.equal(value, kept[name]) for name, value in plain.state_dict().items())
    Adapter.read(tmp_path / "fast").merge(plain)
    assert torch.allclose(few(plain), few(system.painter), atol=3e-2)  # bfloat16 on disk
    assert not torch.allclose(few(plain), few(painter()), atol=3e-2)
    assert told_of(tmp_path / "fast")["defaults"] == {"steps": 2, "guidance": 1.0, "solver": "euler"}


def test_what_was_walked_is_not_walked_again_and_what_was_learned_is_kept(tmp_path, monkeypatch):
    once = student()
    once.learn(ASKED, PLAN, 5, tmp_path / "once", **HOW)
    cut = student()

    def stop(step):
        if step.index == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut.learn(ASKED, Plan(**{**vars(PLAN), "save_minutes": 0.0}), 5, tmp_path / "cut", on_step=stop, **HOW)
    again = student()
    monkeypatch.setattr(again, "walked", lambda *_, **__: pytest.fail("walked again"))
    again.learn(ASKED, PLAN, 5, tmp_path / "cut", **HOW)
    first, second = Adapter.of(once.painter), Adapter.of(again.painter)
    assert all(torch.equal(a, b) for name in first.layers for a, b in zip(first.layers[name], second.layers[name], strict=True))
    lines = [json.loads(line) for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == PLAN.steps


def test_paths_of_another_way_are_walked_anew(tmp_path):
    system = student()
    first = system.paths(ASKED, PLAN, tmp_path, **HOW).rows["path"]
    second = system.paths(ASKED, PLAN, tmp_path, **{**HOW, "guidance": 1.0}).rows["path"]
    assert not torch.equal(first, second)
