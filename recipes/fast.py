"""Make the default model's fast adapter: the sentences of its training pictures, and what `diorama distill` learns from them.

    python recipes/fast.py --data emoji --out sentences.jsonl
    diorama distill sentences.jsonl -o fast

Sentences and styles are those the model was trained with, composed ones among them, and no combination that it never saw.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from diorama.data.order import index_at
from diorama.files import atomic_file
from diorama.sources import Data
from diorama.types import Noise, mix

SEED = 0  # of the split and the order that the default model was trained with
UNSTYLED, STREAM = 0.15, 7  # of the sentences ask for no style, as people may; which, no other draw of this seed decides


@dataclass(frozen=True)
class Arguments:
    """Write the sentences."""

    data: Path  # the emoji shards
    out: Path = Path("sentences.jsonl")
    n: int = 2880


def main() -> None:
    arguments = tyro.cli(Arguments)
    data = Data(path=arguments.data, on_white=True, compose=3, hold_out=0.1, often="base=3")
    source, _ = data.split(data.open(SEED), SEED)
    said = [source.record(index_at(p, len(source), SEED)) for p in range(arguments.n)]
    styled = Noise([mix(SEED, STREAM, i) for i in range(arguments.n)]).uniform() >= UNSTYLED
    lines = [
        {"prompt": item["text"], "style": item["label"] if keep else None}
        for item, keep in zip(said, styled.tolist(), strict=True)
    ]
    with atomic_file(arguments.out) as new:
        new.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
