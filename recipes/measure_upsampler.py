r"""Measure an upsampler beside plain ways to enlarge, on held-out pictures whose true larger form is known.

    diorama train upsampler --data emoji --on-white --size 128 --hold-out 0.1 --out runs/upsampler \
        --steps 1500 --batch 16 --lr 1.5e-3 --warmup 50 --decay 0.5 --ema 0.995
    python recipes/measure_upsampler.py runs/upsampler/model --data emoji --scorer runs/clip/model --out runs/upsampler/measured

The pictures are 128 px large and no larger form of them exists, so what is measured is 64 to 128 px, and 128 to 256 px is only
drawn. They are made small in two ways: as they are, by averages, and as the default model's codec would have painted them. The
scorer was trained with the same hold-out and never on what any upsampler makes; it sees the middle of each picture at full size,
since it would shrink the whole. Writes numbers.json, compared.png and painted.png.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

from diorama.assets import asset
from diorama.codecs.conv import ConvCodec
from diorama.critics.fidelity import perceptual, psnr, ssim
from diorama.critics.frechet import frechet
from diorama.critics.statistics import mean
from diorama.data import Batches, hold_out, open_data
from diorama.data.batches import on_white
from diorama.files import write_json
from diorama.networks.layers import ResidualBlock, halved
from diorama.networks.precision import processor_kind, use_cores
from diorama.pictures import sheet, to_pil
from diorama.pipeline import lanczos, load
from diorama.processes.cascade import resized
from diorama.systems.images.upsampler import Upsampler, painted
from diorama.systems.understanding.clip import Clip
from diorama.types import Noise, Score

HELD_OUT, DATA_SEED = 0.1, 0  # as it was trained with
CHUNK = 16
SENTENCES = ("a smiling cat with sunglasses", "a red apple", "a robot", "a slice of pizza", "a panda", "a rocket")

Enlarge = Callable[[Tensor, Noise], Tensor]  # (b, 4, h, w) -> (b, 4, 2 h, 2 w)


@dataclass(frozen=True)
class Arguments:
    """Measure an upsampler."""

    model: tyro.conf.Positional[Path]
    data: Path  # the emoji shards
    scorer: Path  # a saved clip, trained with the same hold-out
    out: Path
    n: int = 200  # held-out pictures
    steps: tuple[int, ...] = (1, 4)
    threads: int | None = None


def ways(upsampler: Upsampler, steps: tuple[int, ...]) -> dict[str, Enlarge]:
    """What is compared."""

    def drawn(n: int) -> Enlarge:
        return lambda small, noise: upsampler.sample(small, steps=n, noise=noise)

    return {
        "bicubic": lambda small, noise: resized(small, [2 * side for side in small.shape[2:]]).clamp(-1, 1),
        "Lanczos": lambda small, noise: torch.stack([lanczos(x, 2 * x.shape[-1]) for x in small]).clamp(-1, 1),
        **{f"upsampler, {n} step{'s' * (n > 1)}": drawn(n) for n in steps},
    }


def held_out(arguments: Arguments, size: int) -> Tensor:
    """(n, 4, size, size) in [-1, 1]."""
    _, held = hold_out(open_data(arguments.data, on_white=True), HELD_OUT, DATA_SEED)
    return Batches(held, size, min(arguments.n, len(held)), DATA_SEED)(0).image


def made_larger(way: Enlarge, small: Tensor) -> tuple[Tensor, float]:
    """All of them, and the seconds each took."""
    began = time.perf_counter()
    parts = [way(part, Noise(range(CHUNK * i, CHUNK * i + len(part)))) for i, part in enumerate(small.split(CHUNK))]
    return torch.cat(parts), (time.perf_counter() - began) / len(small)


def middle(image: Tensor, side: int) -> Tensor:
    first = (image.shape[-1] - side) // 2
    return image[..., first : first + side, first : first + side]


def pyramid(scorer: Clip, image: Tensor) -> list[Tensor]:
    """What the scorer's tower sees at each of its levels, at the picture's own size."""
    x, levels = image[:, :3], []
    for layer in scorer.image.trunk:
        x = layer(x)
        if isinstance(layer, ResidualBlock):
            levels.append(x)
    return levels


def scores(scorer: Clip, image: Tensor, truth: Tensor) -> dict[str, Score]:
    """How near the enlarged pictures (n, 4, h, w) come to the true ones; each reads from more of a picture than the one before."""
    pairs = list(zip(image.split(CHUNK), truth.split(CHUNK), strict=True))
    side = scorer.image.config.size
    features = [torch.cat([scorer.features(middle(part, side)) for part in x.split(CHUNK)]) for x in (image, truth)]
    embeddings = [scorer.heads.picture(x) for x in features]
    return {
        "PSNR": psnr.score(psnr(image, truth)),
        "SSIM": ssim.score(ssim(image, truth)),
        "perceptual distance": perceptual.score(
            torch.cat([perceptual(pyramid(scorer, x), pyramid(scorer, y)) for x, y in pairs])
        ),
        "scorer's agreement": mean((embeddings[0] * embeddings[1]).sum(1), "cosine", True),
        "Frechet distance": frechet(features[0], features[1]),
    }


def draw(path: Path, columns: list[Tensor]) -> None:
    """One row a picture, one column a way; small pictures are shown as they are, pixel by pixel."""
    largest = max(x.shape[-1] for x in columns)
    alike = [x.repeat_interleave(largest // x.shape[-1], 2).repeat_interleave(largest // x.shape[-1], 3) for x in columns]
    pictures = [picture for row in zip(*alike, strict=True) for picture in to_pil(torch.stack(row))]
    sheet(pictures, len(columns)).save(path)


@torch.no_grad()
def measure(arguments: Arguments) -> dict[str, dict[str, Score]]:
    """Every score of every way, for both kinds of small pictures."""
    upsampler, scorer = Upsampler.from_pretrained(arguments.model), Clip.from_pretrained(arguments.scorer).eval()
    compared, found = ways(upsampler, arguments.steps), {}
    truth = held_out(arguments, upsampler.size)
    codec = ConvCodec.from_pretrained(asset("default") / "codec").eval()
    kinds = {"as they are": halved(truth), "as painted": torch.cat([painted(part, codec) for part in truth.split(CHUNK)])}
    rows = []
    for kind, small in kinds.items():
        larger = {name: made_larger(way, small) for name, way in compared.items()}
        for name, (image, seconds) in larger.items():
            found[f"{kind}, {name}"] = scores(scorer, image, truth)
            print(f"{kind}, {name}: {seconds:.3f} s a picture", flush=True)
        rows.append([small[:6], *(image[:6] for image, _ in larger.values()), truth[:6]])
    draw(arguments.out / "compared.png", [torch.cat(column) for column in zip(*rows, strict=True)])
    generated = load("default", dtype="float32").sample(SENTENCES, seed=0, transparent=True)
    small = torch.stack([torch.from_numpy(on_white(picture)) for picture in generated]) / 127.5 - 1
    draw(arguments.out / "painted.png", [made_larger(way, small)[0] for way in compared.values()])
    return found


def table(found: dict[str, dict[str, Score]]) -> str:
    """Markdown, one line a way."""
    names = list(next(iter(found.values())))
    lines = [f"| small pictures, way | {' | '.join(names)} |", f"|{'---|' * (len(names) + 1)}"]
    for way, scored in found.items():
        lines.append(f"| {way} | {' | '.join(f'{s.value:.3f} ± {s.stderr:.3f}' for s in scored.values())} |")
    return "\n".join(lines)


def main() -> None:
    arguments = tyro.cli(Arguments)
    use_cores(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = measure(arguments)
    numbers = {way: {name: asdict(score) for name, score in scored.items()} for way, scored in found.items()}
    write_json(arguments.out / "numbers.json", {"processor": processor_kind(), "n": arguments.n, "numbers": numbers})
    print(table(found))


if __name__ == "__main__":
    main()
