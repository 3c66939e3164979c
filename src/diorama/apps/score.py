"""`diorama score`: how good pictures are, every number with its error."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import floor, log10
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from diorama.apps.flags import flag
from diorama.apps.output import find_model, use_all_cores
from diorama.errors import UserError
from diorama.foundations.registry import folder_of
from diorama.models import HUB, INDEX

if TYPE_CHECKING:
    from diorama import types
    from diorama.apps.judge import Measured

SAFE, PICKLES = ".safetensors", {".pth", ".pt", ".bin", ".ckpt", ".pkl"}
FEATURES = "world-features"  # the foundation model that looks where no other network is given


@dataclass(frozen=True, kw_only=True)
class Score:
    """How good pictures are: alone, beside their captions, and beside real ones.

    Distances are taken in the features of a network, so numbers compare only within one; every line names what it stands on.
    """

    pictures: Annotated[tyro.conf.Positional[str], flag("PICTURES")]
    """A folder, or any other layout that `diorama train` reads."""
    reference: Annotated[str | None, flag("PATH")] = None
    """Real pictures to compare with, in any layout."""
    paired: Annotated[bool, flag()] = False
    """Compare also one by one, with the reference of the same name and size."""
    text: Annotated[str | None, flag("FILE")] = None
    """Captions: .jsonl, .csv or .parquet with file_name and text. Without it, those beside the pictures."""
    features: Annotated[str | None, flag("NAME|DIR|FILE|hub:OWNER/NAME")] = None
    """The network that looks: a saved clip or classifier, a CLIP of transformers, the Inception of FID (.safetensors).

    Without it, the shipped world-features."""
    size: Annotated[int | None, flag("INT")] = None
    """Pixels along a side at which it looks; its own where not given."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: Annotated[bool, flag()] = False
    """One JSON object on standard output."""

    def run(self) -> int:
        if self.paired and self.reference is None:
            raise UserError("--paired has nothing to pair with: give the real pictures with --reference")
        if self.size is not None and self.size < 1:
            raise UserError(f"size {self.size} is not allowed: use 1 or more pixels")
        folder = self._features()
        from diorama.apps.judge import WORDS, Judge, captions  # torch, from here on
        from diorama.data import open_data

        use_all_cores()
        pictures = open_data(self.pictures)
        reference = None if self.reference is None else open_data(self.reference)
        said = None if self.text is None else captions(self.text, pictures)
        judge = Judge(folder, self.device, self.size, folder_of(WORDS))
        found = judge.score(pictures, reference, said, self.paired)
        if not any(measured.score for measured in found.values()):
            raise UserError(f"{self.pictures} gives nothing to measure: {next(iter(found.values())).why}")
        self._tell(found, list(dict.fromkeys(judge.notes)))
        return 0

    def _features(self) -> Path:
        name = self.features or FEATURES
        if name.startswith(HUB):
            from diorama.hub.features import fetched  # torch with it

            return fetched(name)
        folder = Path(name).expanduser()
        if folder.suffix in PICKLES and not folder.is_dir():
            raise UserError(
                f"{name} is a pickle, which could run anything and is never opened: convert it to .safetensors once, as docs/critics.md says"
            )
        if folder.suffix == SAFE and not folder.is_dir():
            if not folder.is_file():
                raise UserError(f"weights file {name} is not there: give the .safetensors file of FID's Inception, or a folder")
            return folder
        of_transformers = (folder / "config.json").is_file() and not (folder / INDEX).is_file()
        return folder if of_transformers else find_model(name)

    def _tell(self, found: Mapping[str, Measured], notes: Sequence[str]) -> None:
        if self.json:
            scores = [{"measure": name, **(asdict(m.score) if m.score else {"why": m.why})} for name, m in found.items()]
            print(json.dumps({"scores": scores, "notes": notes}, indent=2))
            return
        rows = [(name, *_cells(m.score)) for name, m in found.items()]
        wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(f"{cell:<{w}}" for cell, w in zip(row, wide, strict=True)).rstrip())
        for name, measured in found.items():
            if measured.why:
                print(f"{name}: {measured.why}")
        for note in notes:
            print(f"diorama: {note}", file=sys.stderr)


def _cells(score: types.Score | None) -> tuple[str, ...]:
    if score is None:
        return "-", "", "", "", ""
    digits = min(6, max(0, 1 - floor(log10(score.stderr)))) if score.stderr > 0 else 4  # two of the error, as many of the value
    value = f"{score.value:.{digits}f} ± {score.stderr:.{digits}f}"
    return value, "↑" if score.higher_is_better else "↓", score.unit, f"n = {score.n}", score.features


__all__ = ["Score"]
