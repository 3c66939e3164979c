r"""Measure a text-to-image model on held-out (concept, style) prompts, by an independent scorer that never saw it.

    diorama train clip --data emoji --on-white --size 64 --hold-out 0.1 --often base=2 --out runs/clip \
        --steps 1400 --batch 128 --lr 1e-3 --warmup 100 --decay 0.5 --weight-decay 0.05 --ema 0.995
    python recipes/measure_default.py runs/default/model --data emoji --scorer runs/clip/model --out runs/default/measured

The scorer is trained with the same data, hold-out and seed as the model. Writes numbers.json and sheets of pictures. Every
number of the model stands beside the same number of the real held-out pictures, of other real pictures (the floor of the
distances), of the real ones through the model's codec (its ceiling) and of two ways to cheat by copying training pictures:
the right concept in another style, and the right style of the concept with the nearest caption. `--quick` leaves out all
that does not change with `--steps`, `--guidance` and `--solver`, for a sweep.
"""

from __future__ import annotations

import json
import random
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from PIL import Image
from torch import Tensor

from diorama.critics.contrastive import accuracy, ranks, top
from diorama.critics.frechet import frechet, kernel_distance
from diorama.critics.nearest import closeness, copied, nearest
from diorama.critics.statistics import ratio, share
from diorama.data import Batches, Source, Subset, hold_out, index_at, open_data
from diorama.data.colours import COLOURS, dominant
from diorama.errors import UserError
from diorama.files import atomic_file, write_json
from diorama.networks.precision import ground, processor_kind, use_cores
from diorama.pictures import labelled, sheet, to_pil
from diorama.pipeline import load
from diorama.systems.base import load_system
from diorama.systems.images.flow import Flow
from diorama.systems.understanding.clip import Clip
from diorama.types import Noise, Score, mix

PROMPTS = Path(__file__).parent / "prompts"
CANDIDATES = 100
CHUNK = 32  # pictures sampled or looked at together
HELD_OUT, DATA_SEED = 0.1, 0  # as the default model and the scorer were trained with
HUE = 25  # degrees that still are the same colour to the eye


@dataclass(frozen=True)
class Arguments:
    """Measure a text-to-image model."""

    model: tyro.conf.Positional[Path]
    data: Path  # the emoji shards
    scorer: Path  # a saved clip, trained with the same hold-out
    out: Path
    n: int = 500  # held-out prompts, all there are if fewer
    seed: int = 0  # picture i is made with seed + i
    steps: int | None = None  # the model's own default, as of the two below
    guidance: float | None = None
    solver: str | None = None
    adapter: tuple[str, ...] = ()  # that the model wears
    threads: int | None = None
    quick: bool = False  # only retrieval, style and distances of held-out prompts: for a sweep


# --- what is asked, and what would be right -------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """One prompt: its words, its style, and the caption that a right picture is nearest to."""

    prompt: str
    style: str | None
    means: str | None = None
    concept: str = ""
    colour: str | None = None


class World:
    """The real pictures: what was trained on, what was held out, and all captions there are."""

    def __init__(self, path: Path, size: int):
        source = open_data(path, on_white=True)
        self.train, self.test = hold_out(source, HELD_OUT, DATA_SEED)
        self.size = size
        self.records = [self.train.record(i) for i in range(len(self.train))]
        plain = [said for i in range(len(source)) if (said := source.record(i)).get("base") and said["text"]]
        self.concepts = {said["text"]: said["concept"] for said in plain}  # a caption two concepts share names either
        self.styles = [style for style, n in Counter(said["style"] for said in plain).most_common() if n > len(plain) / 20]

    def held_out(self, n: int) -> tuple[list[Asked], Subset]:
        """Up to n held-out prompts in a fixed random order, and their real pictures. Plain forms only: the rest are near-copies."""
        plain = [i for i in range(len(self.test)) if self.test.record(i).get("base") and self.test.record(i)["text"]]
        if not plain:
            raise UserError("no plain picture was held out: measure on data with the fields concept, style and base")
        chosen = [plain[index_at(p, len(plain), DATA_SEED)] for p in range(min(n, len(plain)))]
        said = [self.test.record(i) for i in chosen]
        return [Asked(s["text"], s["style"], s["text"], s["concept"]) for s in said], Subset(self.test, chosen)

    def listed(self, name: str) -> list[Asked]:
        """The prompts of a file, each in one of the larger styles in turn."""
        lines = [json.loads(line) for line in (PROMPTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        styles = [self.styles[i % len(self.styles)] for i in range(len(lines))]
        return [
            Asked(line["prompt"], style, line.get("means"), self.concepts.get(line.get("means"), ""), line.get("colour"))
            for line, style in zip(lines, styles, strict=True)
        ]

    def candidates(self, asked: Asked) -> list[str]:
        """The right caption and 99 of other concepts, the same for every model."""
        assert asked.means is not None
        others = sorted(text for text, concept in self.concepts.items() if concept != asked.concept and text != asked.means)
        chance = random.Random(mix(DATA_SEED, zlib.crc32(f"{asked.concept}\0{asked.means}".encode())))
        return [asked.means, *chance.sample(others, CANDIDATES - 1)]

    # --- pictures to compare with: indices into the training set ---

    def plain(self) -> list[int]:
        return [i for i, said in enumerate(self.records) if said.get("base") and said["text"]]

    def floor(self, asked: Sequence[Asked]) -> list[int]:
        """Real training pictures of other concepts, as many of each style as were asked for."""
        by_style, wanted = defaultdict(list), Counter(a.style for a in asked)
        for i in self.plain():
            by_style[self.records[i]["style"]].append(i)
        chance = random.Random(DATA_SEED)
        return [i for style, n in sorted(wanted.items()) for i in chance.sample(by_style[style], min(n, len(by_style[style])))]

    def other_style(self, asked: Asked) -> int:
        """The same concept in a style that was trained on: there always is one."""
        chance = mix(zlib.crc32(f"{asked.concept}\0{asked.style}".encode()))
        forms = [i for i, said in enumerate(self.records) if said["concept"] == asked.concept]
        plain = [i for i in forms if self.records[i].get("base")] or forms
        return plain[chance % len(plain)]

    def nearest_captions(self, asked: Sequence[Asked], text: Any) -> list[int]:
        """For each prompt the training picture in its style whose caption means most nearly the same."""
        plain = self.plain()
        captions = _pooled(text, [self.records[i]["text"] for i in plain])
        similarity = _pooled(text, [a.prompt for a in asked]) @ captions.T
        same = torch.tensor([[self.records[i]["style"] == a.style for i in plain] for a in asked])
        return [plain[i] for i in similarity.masked_fill(~same, -2).argmax(1).tolist()]

    def of_concept(self, asked: Asked) -> int:
        """A training picture of what the prompt means, in its style where there is one."""
        forms = [i for i in self.plain() if self.records[i]["concept"] == asked.concept]
        return next((i for i in forms if self.records[i]["style"] == asked.style), forms[0])

    def pictures(self, source: Source) -> Tensor:
        """(n, 4, size, size) uint8, in order."""
        batches = Batches(source, self.size, CHUNK, 0, threads=2, ordered=True)
        steps = range(-(-len(source) // CHUNK))
        return torch.cat([_bytes(batches(step, stop=len(source)).image) for step in steps])


def _pooled(text: Any, sentences: Sequence[str]) -> Tensor:
    return torch.cat([text(sentences[i : i + 256]).pooled for i in range(0, len(sentences), 256)])


def _bytes(image: Tensor) -> Tensor:
    return ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()


def _image(pictures: Tensor) -> Tensor:
    return pictures.float() / 127.5 - 1


# --- the scorer -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """Pictures as the scorer sees them."""

    embedding: Tensor  # (n, d) of length 1
    features: Tensor  # (n, d)
    style: Tensor  # (n,) int64

    def rows(self, index: Sequence[int]) -> Seen:
        return Seen(self.embedding[list(index)], self.features[list(index)], self.style[list(index)])


@dataclass
class Judge:
    """The scorer, and what is right."""

    clip: Clip
    world: World

    def __post_init__(self) -> None:
        captions = sorted(self.world.concepts)
        vectors = [self.clip.encode_text(captions[i : i + 256]) for i in range(0, len(captions), 256)]
        self.captions = dict(zip(captions, torch.cat(vectors).cpu(), strict=True))

    def see(self, pictures: Tensor) -> Seen:
        """(n, 4, h, w) uint8."""
        parts = [_image(part) for part in pictures.split(4 * CHUNK)]
        features = torch.cat([self.clip.features(part) for part in parts])
        style = torch.cat([self.clip.style_of(part) for part in parts])
        return Seen(self.clip.heads.picture(features).cpu(), features.cpu(), style.cpu())

    def ranks(self, seen: Seen, asked: Sequence[Asked]) -> Tensor:
        texts = torch.stack([torch.stack([self.captions[c] for c in self.world.candidates(a)]) for a in asked])
        return ranks(seen.embedding, texts)

    def styles(self, asked: Sequence[Asked]) -> Tensor:
        return torch.tensor([self.clip.styles.index(a.style) for a in asked])


# --- the model ------------------------------------------------------------------------------------


class Model:
    """The model under test, at one setting."""

    def __init__(self, arguments: Arguments):
        self.ground = ground()
        worn = load(arguments.model, adapters=arguments.adapter)
        if not isinstance(worn.system, Flow):
            raise UserError(f"{arguments.model} is a saved {worn.system.card.slug}, which is not measured so: give a flow")
        self.system, self.worn, self.weights, asked = worn.system, worn.adapters, worn.weights, vars(arguments)
        self.options: dict[str, Any] = {
            name: value if asked[name] is None else asked[name] for name, value in worn.defaults.items()
        }
        self.seed, self.seconds, self.made = arguments.seed, 0.0, 0

    def make(self, asked: Sequence[Asked]) -> Tensor:
        """One picture each: (n, 4, size, size) uint8."""
        pictures, began = [], time.monotonic()
        for first in range(0, len(asked), CHUNK):
            part = asked[first : first + CHUNK]
            noise = Noise([self.seed + first + i for i in range(len(part))], self.ground.device)
            with self.ground.autocast():
                x = self.system.sample([a.prompt for a in part], [a.style for a in part], noise=noise, **self.options)
            pictures.append(_bytes(x.float()))
        self.seconds += time.monotonic() - began
        self.made += len(asked)
        return torch.cat(pictures)

    def coded(self, pictures: Tensor) -> Tensor:
        """The same pictures through the model's codec: the best that its latents could give."""
        codec, parts = self.system.codec, []
        for part in pictures.split(CHUNK):
            parts.append(_bytes(codec.decode(codec.encode(_image(part).to(self.ground.device))).float()))
        return torch.cat(parts)


# --- the measures ---------------------------------------------------------------------------------

Numbers = dict[str, Score]
FLOOR = "other real pictures"


def of_held_out(judge: Judge, asked: Sequence[Asked], generated: Seen, real: Seen) -> Numbers:
    """Is it what was asked for, in the style that was asked for, and how far are such pictures from real ones?"""
    hits, hits_real = judge.ranks(generated, asked) < 1, judge.ranks(real, asked) < 1
    style = judge.styles(asked)
    return {
        f"retrieval top-1 of {CANDIDATES}, generated": share(hits),
        f"retrieval top-1 of {CANDIDATES}, real": share(hits_real),
        "retrieval, generated over real": ratio(hits, hits_real),
        f"retrieval top-5 of {CANDIDATES}, generated": top(judge.ranks(generated, asked), 5),
        "style right, generated": accuracy(generated.style, style),
        "style right, real": accuracy(real.style, style),
        **distances("generated", generated, real),
    }


def of_references(judge: Judge, asked: Sequence[Asked], others: Mapping[str, Seen], real: Seen) -> Numbers:
    """The same numbers for pictures that no model made."""
    numbers = {}
    for name, seen in others.items():
        if name != FLOOR:  # its pictures are of other concepts
            numbers[f"retrieval top-1 of {CANDIDATES}, {name}"] = top(judge.ranks(seen, asked))
            numbers[f"style right, {name}"] = accuracy(seen.style, judge.styles(asked))
        numbers |= distances(name, seen, real)
    return numbers


def distances(name: str, seen: Seen, real: Seen) -> Numbers:
    return {
        f"Frechet distance to real, {name}": frechet(seen.features, real.features),
        f"kernel distance to real, {name}": kernel_distance(seen.features, real.features),
    }


def of_memory(generated: Tensor, unseen: Tensor) -> Numbers:
    """Distances to the nearest training picture: of generated pictures, and of real ones that were never trained on."""
    return {
        "nearer to a training picture than 95% of unseen real ones": copied(generated, unseen),
        "distance to the nearest training picture, generated over unseen real": closeness(generated, unseen),
    }


def of_words(judge: Judge, name: str, asked: Sequence[Asked], seen: Seen, train: Seen, pictures: Tensor) -> Numbers:
    """Where a right answer exists: the concept among 100 (beside a real picture of it), and the colour by its hue."""
    with_answer = [i for i, a in enumerate(asked) if a.concept]
    right = [asked[i] for i in with_answer]
    known = train.rows([judge.world.of_concept(a) for a in right])
    numbers = {
        f"{name}: retrieval top-1 of {CANDIDATES}, generated": top(judge.ranks(seen.rows(with_answer), right)),
        f"{name}: retrieval top-1 of {CANDIDATES}, real pictures of it (trained on)": top(judge.ranks(known, right)),
    }
    coloured = [i for i, a in enumerate(asked) if a.colour]
    if coloured:
        images = to_pil(_image(pictures[coloured]), transparent=True)
        hits = [has_colour(image, str(asked[i].colour)) for i, image in zip(coloured, images, strict=True)]
        numbers[f"{name}: colour right"] = share(torch.tensor(hits))
    return numbers


def has_colour(image: Image.Image, name: str) -> bool:
    """Whether the hue most seen in a straight RGBA picture is that of the named colour, on a third of the object or more."""
    found = dominant(image)
    if found is None or found.share < 1 / 3:
        return False
    away = abs((found.hue * 360 / 256 - COLOURS[name].hue + 180) % 360 - 180)
    return away <= HUE


# --- sheets ---------------------------------------------------------------------------------------


def draw(path: Path, rows: Sequence[Tensor], labels: Sequence[str], columns: int) -> None:
    """Pictures with their labels; several tensors stand side by side above one label."""
    gap = torch.full_like(rows[0][..., :4], 255)
    beside = torch.cat([part for row in rows for part in (row, gap)][:-1], -1)
    pictures = [labelled(p, label) for p, label in zip(to_pil(_image(beside)), labels, strict=True)]
    with atomic_file(path) as new:
        sheet(pictures, columns).save(new, "PNG")


# --- all of it ------------------------------------------------------------------------------------


@torch.no_grad()
def measure(arguments: Arguments) -> dict[str, Any]:
    clip = load_system(arguments.scorer)
    if not isinstance(clip, Clip):
        raise UserError(f"{arguments.scorer} is a saved {clip.card.slug}: give a clip, which `diorama train clip` makes")
    model = Model(arguments)
    world = World(arguments.data, model.system.size)
    judge = Judge(clip, world)
    arguments.out.mkdir(parents=True, exist_ok=True)
    asked, real_source = world.held_out(arguments.n)
    real_pictures, pictures = world.pictures(real_source), model.make(asked)
    real, generated = judge.see(real_pictures), judge.see(pictures)
    numbers = of_held_out(judge, asked, generated, real)
    labels = [f"{a.prompt}, {a.style}" for a in asked]
    draw(arguments.out / "held_out.png", [pictures[:60]], labels[:60], 10)
    if not arguments.quick:
        train = judge.see(world.pictures(world.train))
        others = {
            FLOOR: train.rows(world.floor(asked)),
            "real through the codec": judge.see(model.coded(real_pictures)),
            "copy of the concept in another style": train.rows([world.other_style(a) for a in asked]),
            "copy of the nearest caption in the style": train.rows(world.nearest_captions(asked, clip.text)),
        }
        numbers |= of_references(judge, asked, others, real)
        near, unseen = nearest(generated.features, [train.features]), nearest(real.features, [train.features])
        numbers |= of_memory(near.distance, unseen.distance)
        copies = world.pictures(Subset(world.train, near.index[:40].tolist()))
        draw(arguments.out / "nearest.png", [pictures[:40], copies, real_pictures[:40]], labels[:40], 4)
        for name in ("synonyms", "compositions"):
            listed = world.listed(name)
            made = model.make(listed)
            numbers |= of_words(judge, name, listed, judge.see(made), train, made)
            draw(arguments.out / f"{name}.png", [made], [f"{a.prompt}, {a.style}" for a in listed], 10)
    scores = {name: asdict(score) for name, score in numbers.items()}
    return {"settings": settings(arguments, model, len(asked)), "numbers": scores}


def settings(arguments: Arguments, model: Model, n: int) -> dict[str, Any]:
    return {
        **{k: str(v) if isinstance(v, Path) else v for k, v in asdict(arguments).items()},
        **model.options,
        "prompts": n,
        "seconds_per_picture": round(model.seconds / model.made, 4),
        "dtype": model.ground.dtype_name,
        "processor": processor_kind(),
    }


def table(numbers: Mapping[str, Mapping[str, Any]]) -> str:
    """One line per number, with its error."""
    wide = max(map(len, numbers))
    return "\n".join(f"{name:<{wide}}  {s['value']:9.4f} ± {s['stderr']:.4f}  (n = {s['n']})" for name, s in numbers.items())


def main() -> None:
    arguments, began = tyro.cli(Arguments), time.monotonic()
    use_cores(arguments.threads)
    found = measure(arguments)
    found["settings"]["seconds"] = round(time.monotonic() - began, 1)
    write_json(arguments.out / "numbers.json", found)
    print(table(found["numbers"]))
    print(f"{found['settings']['seconds']} s, sheets and numbers.json in {arguments.out}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
