import pytest
import tiny
import torch

from diorama.conditions.caption import CaptionConfig, CaptionEncoder
from diorama.errors import UserError
from diorama.networks.lora import Adapter, LoRA
from diorama.systems.images.dreambooth import DreamBooth, Halves, Words
from diorama.systems.images.flow import Flow
from diorama.training.plan import Plan
from diorama.types import Batch, Noise, mix

WORDS = Words("sks", "square")
PLAN = Plan(steps=16, batch=4, lr=5e-3, warmup=2, ema=0.5, weight_decay=0.0, device="cpu", dtype="float32")


def painter() -> Flow:
    """One that spells what it does not know."""
    text = CaptionEncoder.of(["a red square", "a blue square"] * 2, CaptionConfig(words=300, width=16, depth=1, heads=2))
    return Flow(tiny.codec(), tiny.randomised(text), tiny.unet(), tiny.STYLES, 16).eval()


def pictures(n: int = 4) -> torch.Tensor:
    return Noise([7]).uniform(4, 16, 16).expand(n, -1, -1, -1) * 2 - 1


def frozen(system: DreamBooth) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in system.painter.state_dict().items() if ".lora_" not in name}


@pytest.mark.parametrize(
    ("words", "subject", "kind"), [("sks toy", "a sks toy", "a toy"), (" zwx  old owl", "a zwx old owl", "an old owl")]
)
def test_words(words, subject, kind):
    assert (Words.of(words).subject, Words.of(words).kind) == (subject, kind)


def test_words_that_will_not_do_are_told():
    with pytest.raises(UserError, match="'sks' names no class"):
        Words.of("sks")
    with pytest.raises(UserError, match="identifier 'red' means something to this model"):
        DreamBooth(painter(), Words("red", "square"))
    with pytest.raises(UserError, match="identifier 'sks' cannot be spelled by"):
        DreamBooth(tiny.flow(), WORDS)


@pytest.mark.parametrize("n", [0, 1, 51])
def test_too_few_or_too_many_pictures_are_told_before_any_work(n):
    system = DreamBooth(painter(), WORDS)
    system.remembered = None  # would fail
    with pytest.raises(UserError, match=rf"{n} pictures? of the subject (is|are) too (few|many): give 2 to 50"):
        system.learn(pictures(n), PLAN)


def test_half_of_every_batch_is_the_class():
    parts = [Batch(torch.zeros(0), [text] * n, latent=torch.arange(n).float()[:, None]) for text, n in (("s", 3), ("c", 5))]
    batches = Halves(*parts, n=6, seed=0)
    seen = [batches(step) for step in range(5)]
    assert all(list(batch.text) == ["s"] * 3 + ["c"] * 3 for batch in seen)
    assert all(sorted(batch.latent[:3, 0].tolist()) == [0, 1, 2] for batch in seen)
    assert sorted(row for batch in seen for row in batch.latent[3:, 0].tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    alone = Halves(parts[0], None, n=6, seed=0)(0)
    assert (list(alone.text), len(alone)) == (["s"] * 6, 6)


def test_it_remembers_what_the_frozen_model_paints():
    before = painter()
    expected = before.codec.encode(before.sample(["a square"], steps=2, guidance=2.0, noise=Noise([mix(5, 1, 0)])))
    remembered = DreamBooth(painter(), WORDS).remembered(9, seed=5, steps=2, guidance=2.0)
    assert (len(remembered), set(remembered.text)) == (9, {"a square"})
    assert torch.allclose(remembered.latent[:1], expected, atol=1e-4)


@pytest.mark.parametrize("rank", [0, 2])
def test_only_what_should_learn_does(rank):
    system = DreamBooth(painter(), WORDS, rank)
    before = frozen(system)
    system.learn(pictures(), Plan(**{**vars(PLAN), "steps": 3}), 4, steps=1)
    changed = {name.partition(".")[0] for name, value in frozen(system).items() if not torch.equal(value, before[name])}
    assert changed == (set() if rank else {"network"})
    assert any(isinstance(layer, LoRA) for layer in system.modules()) == bool(rank)


def test_the_weight_of_the_class_counts_for_the_class_alone():
    batch = Batch(torch.zeros(0), [WORDS.subject, WORDS.kind], latent=Noise([0, 1]).normal(4, 4, 4))
    one, three = (DreamBooth(painter(), WORDS, weight=weight).loss(batch, Noise([2, 3])) for weight in (1.0, 3.0))
    assert torch.allclose(three, one * torch.tensor([1.0, 3.0]))


def test_the_subject_is_learned_and_the_class_kept():
    """Against the same steps without the class: the subject is as near, the class nearer to what it was."""
    losses = {}
    for n in (8, 0):
        system = DreamBooth(painter(), WORDS, rank=0)
        both = system.seen(pictures(8), WORDS.subject), system.remembered(8, 0, steps=1)
        before = mean_losses(system, both)
        system.learn(pictures(), PLAN, n, steps=1)
        losses[n] = mean_losses(system, both) / before
    assert losses[8][0] < 0.9
    assert losses[0][0] < 0.9
    assert losses[8][1] < 0.95 * losses[0][1]


@torch.no_grad()
def mean_losses(system: DreamBooth, batches: tuple[Batch, ...]) -> torch.Tensor:
    return torch.stack([system.loss(batch, Noise(range(len(batch)))).mean() for batch in batches])


def test_what_is_saved_is_the_adapter_or_the_whole_model(tmp_path):
    adapted = DreamBooth(painter(), WORDS, 2)
    adapted.learn(pictures(), Plan(**{**vars(PLAN), "steps": 3}), 0)
    adapted.save_pretrained(tmp_path / "adapter", base="tiny")
    expected, plain = adapted.painter.eval(), painter()
    Adapter.read(tmp_path / "adapter").merge(plain)
    drawn = [p.sample(["a sks square"], steps=2, noise=Noise([0])) for p in (expected, plain, painter())]
    assert torch.allclose(drawn[0], drawn[1], atol=1e-4)
    assert not torch.allclose(drawn[0], drawn[2], atol=1e-2)
    whole = DreamBooth(painter(), WORDS, 0)
    whole.save_pretrained(tmp_path / "whole", name="mine")
    assert isinstance(Flow.from_pretrained(tmp_path / "whole"), Flow)
