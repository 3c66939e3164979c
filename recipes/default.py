"""Make the shipped default model: a codec, then a text-to-image flow in its latents, then int8 files.

    python recipes/default.py --data emoji --out runs/default

Start it again with the same words to resume. `--codec-steps` and `--steps` set how long; the shipped card says what was used.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from PIL import Image

from diorama.assets import asset
from diorama.networks.precision import processor_kind, use_cores
from diorama.pictures import labelled, sheet
from diorama.pipeline import load
from diorama.recipe import Request
from diorama.sources import Data
from diorama.systems.base import load_system
from diorama.systems.images.flow import Flow
from diorama.train import minutes, train
from diorama.training.plan import Plan
from diorama.types import OnStep, Step


@dataclass(frozen=True)
class Arguments:
    """Train the default model."""

    data: Path  # the emoji shards
    out: Path = Path("runs/default")
    codec_steps: int = 6000  # of 16 pictures
    steps: int = 30_000  # of 32 pictures
    name: str = "default"
    minutes: float = 3.0  # between checkpoints
    samples: int = 2000  # steps between sheets of samples


CODEC = Plan(batch=16, lr=8e-4, warmup=100, decay=0.4, ema=0.998, sample_every=500)
FLOW = Plan(batch=32, lr=1e-3, warmup=300, decay=0.3, betas=(0.9, 0.95), ema=0.9995)
DEFAULTS = {"steps": 12, "guidance": 5.0, "solver": "dpmpp_2m"}  # chosen by `recipes/measure_default.py --quick`


def codec(arguments: Arguments) -> None:
    """L1 with its differences and averages, and a little KL; no adversary."""
    plan = replace(CODEC, steps=arguments.codec_steps, save_minutes=arguments.minutes)
    data = Data(path=arguments.data, on_white=True, compose=4, hold_out=0.1)
    train("autoencoder", data, arguments.out / "codec", plan, on_step=_shown("codec"))


def flow(arguments: Arguments) -> None:
    """Plain forms three times as often as skin tones and genders; every picture composed in several ways."""
    plan = replace(FLOW, steps=arguments.steps, save_minutes=arguments.minutes, sample_every=arguments.samples)
    data = Data(path=arguments.data, on_white=True, compose=3, hold_out=0.1, often="base=3")
    base = arguments.out / "codec" / "model"
    train(
        "flow",
        data,
        arguments.out / "flow",
        plan,
        base=base,
        name=arguments.name,
        on_step=_shown("flow"),
        on_encode=_shown("encode"),
    )


def pack(arguments: Arguments) -> Path:
    """The trained flow as int8 with its card: what goes into the package."""
    target, system = arguments.out / "model", load_system(arguments.out / "flow" / "model")
    assert isinstance(system, Flow)
    done = {"steps": arguments.steps, "pictures": arguments.steps * FLOW.batch}
    system.save_pretrained(target, storage="int8", name=arguments.name, defaults=DEFAULTS, upsampler="upsampler", **done)
    shutil.copytree(
        asset("default") / "text", target / "text", dirs_exist_ok=True
    )  # the same file, with its own card and licence
    (target / "README.md").write_text(card(arguments), encoding="utf-8")
    samples(target).save(target / "samples.png")
    return target


def samples(model: Path) -> Image.Image:
    """The same sentences for every model, none of them chosen by its picture."""
    pipeline = load(model)
    styles = [("fluent-3d", "noto", "fluent-flat", "blob")[i % 4] for i in range(len(SENTENCES))]
    requests = [
        Request(prompt=prompt, style=style, seed=i) for i, (prompt, style) in enumerate(zip(SENTENCES, styles, strict=True))
    ]
    pictures = [labelled(p.convert("RGB"), f"{p.recipe.prompt}, {p.recipe.style}") for p in pipeline.stream(requests)]
    return sheet(pictures, columns=8)


def card(arguments: Arguments) -> str:
    """The model card: what was done, read from the logs, and what was measured, where it was."""
    runs = {name: _log(arguments.out / name / "log.jsonl") for name in ("codec", "flow")}
    plans = {"codec": CODEC, "flow": FLOW}
    spent = {name: minutes(arguments.out / name / "log.jsonl", plans[name].batch) for name in runs}
    rows = [
        f"| {name} | {int(log[-1]['step']):,} | {int(log[-1]['step']) * plans[name].batch:,} | {spent[name]:.0f} | "
        f"{log[-1]['held_out_loss']:.3f} |"
        for name, log in runs.items()
    ]
    measured = arguments.out / "measured" / "numbers.json"
    found = json.loads(measured.read_text()) if measured.is_file() else {"numbers": {}, "settings": {}}
    numbers = [f"| {name} | {_number(score)} | {score['n']} |" for name, score in found["numbers"].items()]
    return TEMPLATE.format(
        command=f"python recipes/default.py --data emoji --codec-steps {arguments.codec_steps} --steps {arguments.steps}",
        processor=processor_kind(),
        runs="\n".join(rows),
        defaults=", ".join(f"{k} {v}" for k, v in DEFAULTS.items()),
        numbers="\n".join(numbers) or "| not measured yet | | |",
    )


SENTENCES = (
    "a smiling cat with sunglasses", "a red apple", "a purple apple", "a robot", "a blue car", "a house", "a slice of pizza", "a rocket",
    "a grinning face", "a crying face", "an angry red face", "a green smiling face", "a dog", "a panda", "a fish", "a bird",
    "a heart", "a yellow star", "a clock", "a key", "an umbrella", "a flower", "a tree", "the sun",
    "a cat and a dog", "a small car", "a banana on a blue background", "a woman with red hair", "a waving hand", "a flag of France",
    "kitty", "automobile",
)  # fmt: skip


def _number(score: dict[str, float]) -> str:
    return f"{score['value']:.3g} ± {score['stderr']:.2g}"


def _log(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _shown(what: str) -> OnStep:
    """A line every hundred steps."""
    start = time.monotonic()

    def show(step: Step) -> None:
        if step.index % 100 == 0 or step.index + 1 == step.n:
            values = " ".join(f"{k} {v:.4g}" for k, v in step.values.items())
            print(f"{what} {step.index}/{step.n} {time.monotonic() - start:.0f}s {values}", flush=True)

    return show


TEMPLATE = """---
license: apache-2.0
library_name: diorama
pipeline_tag: text-to-image
language: en
---

# The default model

A sentence and, if you like, a style (blob, fluent-3d, fluent-flat, noto, noto-flag) to a picture of 128 x 128 pixels with alpha: the
`mini` preset of `flow`, a rectified flow in the 8 x 8 x 16 latents of a convolutional codec, with a frozen sentence encoder.

- **Data**: 9,936 captioned emoji in five styles: Noto Emoji (Apache-2.0), Blobmoji (Apache-2.0), Fluent Emoji flat and 3D (MIT), region
  flags (public domain or exempt). A tenth of the (concept, style) combinations, 1,006 pictures, was never trained on. Because alpha is
  known, true captions are composed: recoloured, side by side, several, small, on a coloured ground.
- **Text encoder**: all-MiniLM-L6-v2 (Apache-2.0), trimmed; its own card is in `text/`.
- **Made by** `{command}` on two cores of a {processor} processor.
- **Stored** as int8 with one scale per output channel.

| part | steps | pictures | minutes | held-out loss |
|---|---|---|---|---|
{runs}

## Measured

By `python recipes/measure_default.py` at the model's defaults ({defaults}): an independent scorer,
trained on the same pictures with the same hold-out and never used in training the model, judges prompts of combinations that were
held out. Beside the generated pictures stand the real
held-out ones, the real ones through the codec (the ceiling its latents allow), and two ways to cheat by copying training pictures.

| what | value | n |
|---|---|---|
{numbers}

The targets are 70% of the real pictures' retrieval and 95% right styles.

![Samples](samples.png)

## Limits

Emoji-like pictures only. English only. What the numbers above say it gets wrong, it gets wrong: look at the sheets before you rely on it.
"""


def main() -> None:
    arguments = tyro.cli(Arguments)
    use_cores()
    codec(arguments)
    flow(arguments)
    print(pack(arguments))


if __name__ == "__main__":
    main()
