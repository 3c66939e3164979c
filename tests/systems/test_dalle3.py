from types import SimpleNamespace

import pytest
import tiny
import torch

from diorama.apps.cli import main
from diorama.conditions.caption import CaptionConfig, CaptionEncoder
from diorama.conditions.writer import Writer, WriterConfig
from diorama.errors import UserError
from diorama.recipe import read_recipe
from diorama.sources import Data
from diorama.systems.base import load_system
from diorama.systems.images.dalle3 import Dalle3, PromptUpsampler
from diorama.systems.images.flow import Flow
from diorama.train import train
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Batch, Noise

LONG = ["a large red square on a white background", "a small blue square on a black background"]
SHORT = ["a red square", "a blue square"]
WORDS = CaptionConfig(words=300, width=16, depth=1, heads=2, max_tokens=12)
PLAN = Plan(steps=2, batch=2, warmup=1, device="cpu", dtype="float32")


def built():
    torch.manual_seed(0)
    text = CaptionEncoder.of(LONG * 4, WORDS)
    writer = Writer(WriterConfig(words=300, width=24, depth=1, heads=2, max_tokens=12, read=16), text.tokenizer)
    reader = CaptionEncoder(WORDS, text.tokenizer)
    return Dalle3(tiny.codec(), text, tiny.unet(labels=0), (), 16, reader=reader, writer=writer)


def batch(short=SHORT):
    return Batch(Noise(range(2)).uniform(4, 16, 16) * 2 - 1, LONG, short=short)


def learned(loss, model):
    model.zero_grad()
    loss.mean().backward()
    return {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


# --- training -------------------------------------------------------------------------------------


def test_painter_and_upsampler_share_nothing_and_leave_nothing_out():
    model = tiny.randomised(built())
    model.codec.requires_grad_(False)
    painter, upsampler = model.phases()
    assert learned(painter.loss(batch(), Noise([0, 1])), model) == {"text", "network"}
    assert learned(upsampler.loss(batch(), Noise([0, 1])), model) == {"reader", "writer"}
    both = [id(p) for phase in (painter, upsampler) for p in phase.parameters]
    assert sorted(both) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_the_painter_is_a_flow_and_only_the_data_is_new():
    model = tiny.randomised(built()).eval()
    flow = Flow(model.codec, model.text, model.network, (), 16)
    model.dropped = flow.dropped = {}
    assert torch.equal(model.loss(batch(), Noise([0, 1])), flow.loss(batch(), Noise([0, 1])))
    assert torch.equal(*(m.sample(SHORT, steps=2, noise=Noise([0, 1])) for m in (model, flow)))


def test_captions_without_short_words_are_learned_from_nothing():
    model = built()
    without, empty = (model.upsampler_loss(batch(short), Noise([0, 1])) for short in ((), ("", "")))
    assert torch.equal(without, empty)
    assert not torch.equal(without, model.upsampler_loss(batch(), Noise([0, 1])))


def test_it_learns_to_make_prompts_long():
    model = built()
    model.phases = lambda: Dalle3.phases(model)[1:]
    plan = Plan(steps=80, batch=2, lr=1e-2, warmup=5, ema=0.9, device="cpu", dtype="float32")
    fit(model, lambda step, rank=0, world=1: batch(), plan)
    asked = [SHORT[1], "", SHORT[0]]
    assert model.eval().prompt_upsampler(asked, Noise(range(3))) == [LONG[1], "", LONG[0]]  # what asks for nothing stays


# --- upsamplers of other kinds --------------------------------------------------------------------


class Chat:
    """A client of OpenAI's kind that remembers what it was asked."""

    def __init__(self, answer):
        self.asked, self.answer = [], answer
        self.chat = SimpleNamespace(completions=self)

    def create(self, *, model, messages):
        self.asked.append((model, [m["role"] for m in messages], messages[-1]["content"]))
        answer = self.answer(messages[-1]["content"])
        return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=answer))])


def test_a_chat_model_is_asked_for_each_prompt_that_says_something():
    client = Chat(lambda prompt: None if "nothing" in prompt else f" {prompt},\n in the  \0evening ")
    upsampler = PromptUpsampler.by_chat(client, "some-model")
    assert upsampler(["a cat", " ", "say nothing"], Noise(range(3))) == ["a cat, in the evening", " ", "say nothing"]
    assert client.asked == [("some-model", ["system", "user"], words) for words in ("a cat", "say nothing")]


def test_any_callable_will_do_if_it_writes_one_for_each():
    assert PromptUpsampler(lambda prompts, noise: [p * 2 for p in prompts])(["ab", "c"], Noise([0, 1])) == ["abab", "cc"]
    with pytest.raises(UserError, match="1 long prompts came back for 2"):
        PromptUpsampler(lambda prompts, noise: prompts[:1])(["ab", "c"], Noise([0, 1]))


# --- from the command line ------------------------------------------------------------------------


def test_it_trains_on_pictures_and_its_recipes_hold_the_long_prompts(picture_folder, tmp_path, capsys):
    run = tmp_path / "run"
    train("dalle3", Data(path=picture_folder, size=16), run, PLAN, preset="nano", say=lambda line: None)
    ask = ["generate", "a red square", "", "--system", str(run), "--steps", "2", "--seed", "3", "--upsample-prompt"]
    assert main([*ask, "-o", str(tmp_path / "made/")]) == 0
    prompts = [read_recipe(path).prompt for path in sorted((tmp_path / "made").iterdir())]
    model = load_system(run / "model").eval()
    assert prompts == model.prompt_upsampler(["a red square", ""], Noise([3, 4]))
    assert prompts[0] != "a red square"


def test_a_model_without_an_upsampler_says_so(tiny_model, tmp_path, capsys):
    ask = ["generate", "a red square", "--system", str(tiny_model), "--upsample-prompt", "-o", str(tmp_path / "a.png")]
    assert main(ask) == 2
    assert "does not make prompts longer" in capsys.readouterr().err
