"""`diorama data`: what a data set is, and cleaned or captioned into another."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from diorama.apps.flags import flag
from diorama.apps.output import find_model, steps_bar, use_all_cores
from diorama.errors import UserError

if TYPE_CHECKING:
    from diorama.data.curate import Limits, Looker
    from diorama.data.recaption import Describe

PATH = "FOLDER|SHARDS"


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a folder or shards are: layout, sizes, captions, labels, examples."""

    data: Annotated[tyro.conf.Positional[str], flag(PATH)]
    """Any layout that `diorama train` reads."""
    on_white: Annotated[bool, flag()] = False
    """The pictures' RGB is already laid on white, alpha is only a mask."""
    json: Annotated[bool, flag()] = False
    """One JSON object on standard output."""

    def run(self) -> int:
        from diorama.data import describe, open_data

        found = describe(open_data(self.data, on_white=self.on_white))
        print(json.dumps(vars(found), indent=2, ensure_ascii=False) if self.json else "\n".join(found.lines()))
        return 0


@dataclass(frozen=True, kw_only=True)
class Clean:
    """The pictures worth training on, in a new folder or new shards, with a report of what went and why.

    Goes: what cannot be read, bad captions, subjects that masks do not bear out, pictures that fit their captions worst, and
    repetitions. Stopped or killed at any moment, the same command goes on and ends with the same files.
    """

    data: Annotated[tyro.conf.Positional[str], flag(PATH)]
    """Any layout that `diorama train` reads; it is not changed."""
    out: Annotated[str, flag("DIR", "-o")]
    """A new folder for the pictures or shards that are kept, report.html, report.json and dropped.jsonl."""
    filters: str = "caption,mask,retrieval,duplicate"
    """Which to use, with commas between."""
    scorer: Annotated[str | None, flag("NAME|DIR")] = None
    """A saved clip that knows such pictures, for retrieval: a folder, or world-clip for the miniature world's."""
    fit: Annotated[str, flag("SHARE%|SCORE")] = "10%"
    """What fits its caption too badly: the worst 10%, or all that score less than a number."""
    unlike: Annotated[str, flag("TEXT|TEXT...")] = ""
    """Sentences that a picture should fit less than its own ("a drawing|a logo"): their best is taken from its score."""
    masks: Annotated[str, flag("DIR,DIR...")] = ""
    """Masks of the subjects by the pictures' names, as a segmenter wrote them; where they disagree the picture goes."""
    area: Annotated[str, flag("LOW..HIGH")] = "0.02..1"
    """The share of the picture that its subject may fill."""
    agree: float = 0.5
    """Least overlap (intersection over union) of two masks."""
    shown: float = 0.02
    """Least share of the subject in each colour that the caption names."""
    least_words: int = 1
    """Words a caption must have."""
    repeats: float = 0.02
    """A caption that more than this share of the pictures has says nothing of any (unless it is their label)."""
    alike: float = 0.02
    """How much two thumbnails may differ and be one picture, 0 to 1; 0 asks for equal ones."""
    copy: Annotated[bool, flag()] = False
    """Copy files where they could be linked."""
    on_white: Annotated[bool, flag()] = False
    """The pictures' RGB is already laid on white, alpha is only a mask."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: Annotated[bool, flag()] = False
    """report.json on standard output."""

    def run(self) -> int:
        from diorama.data import open_data  # torch, from here on
        from diorama.data.cleaning import clean

        use_all_cores()
        limits, out = self._limits(), _beside(self.data, self.out)
        source = open_data(self.data, on_white=self.on_white)
        looker, asked = self._looker()
        try:
            with steps_bar("looking") as on_step:
                about = clean(source, out, looker, limits, asked=asked, copy=self.copy, on_step=on_step)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"the same command goes on from {out}.partial") from None
        self._tell(about, out)
        return 0

    def _limits(self) -> Limits:
        from diorama.data.curate import Limits

        fit, share = _number("fit", self.fit.removesuffix("%")), self.fit.endswith("%")
        if share and not 0 <= fit <= 100:
            raise UserError(f"fit {self.fit} is not allowed: use 0% to 100%, or a score")
        if self.least_words < 1:
            raise UserError(f"least-words {self.least_words} is not allowed: use 1 or more")
        low, dots, high = self.area.partition("..")
        if not dots:
            raise UserError(f"area {self.area!r} is not LOW..HIGH: for example 0.02..0.98")
        return Limits(
            filters=[name.strip() for name in self.filters.split(",") if name.strip()],
            least_words=self.least_words,
            repeats=self.repeats,
            worst=fit / 100 if share else 0.0,
            least_score=None if share else fit,
            least_area=_number("area", low),
            most_area=_number("area", high),
            agree=self.agree,
            shown=self.shown,
            alike=self.alike,
        )

    def _looker(self) -> tuple[Looker, Mapping[str, Any]]:
        """What looks at the pictures, and the words by which its work is known again."""
        from diorama.data import open_data
        from diorama.data.curate import Looker
        from diorama.data.encoded import stamps

        folders = [name for name in self.masks.split(",") if name]
        given = [open_data(name) for name in folders]
        masks = [f"{name} {stamps(found)}" for name, found in zip(folders, given, strict=True)]
        asked = {"source": str(Path(self.data).resolve()), "on-white": self.on_white, "masks": masks, "unlike": self.unlike}
        if self.scorer is None:
            return Looker(masks=given), {**asked, "scorer": None}
        from diorama.models import weights_hash
        from diorama.networks.precision import ground
        from diorama.systems.base import load_system
        from diorama.systems.images.foodfusion import fitting
        from diorama.systems.understanding.clip import Clip

        folder = find_model(self.scorer)
        system = load_system(folder)
        if not isinstance(system, Clip):
            raise UserError(
                f"{self.scorer} is a saved {system.card.slug}, which cannot tell what fits a caption: give a saved clip"
            )
        system.to(ground(self.device, "float32").device)
        unlike = [text for text in self.unlike.split("|") if text.strip()]
        return Looker(fitting(system, unlike), system.image.config.size, given), {**asked, "scorer": weights_hash(folder)[:10]}

    def _tell(self, about: Mapping[str, Any], out: Path) -> None:
        if self.json:
            print(json.dumps(about, indent=2, ensure_ascii=False))
            return
        for name, kind in about["reasons"].items():
            if kind["pictures"]:
                print(f"{kind['pictures']:>9,}  {kind['filter']}: {kind['words']} ({name})")
        print(f"{about['kept']:>9,}  of {about['pictures']:,} kept in {out}; {out / 'report.html'} shows what went")
        for note in about["notes"]:
            print(f"diorama: {note}", file=sys.stderr)


@dataclass(frozen=True, kw_only=True)
class Recaption:
    """A folder of pictures under captions that a captioner writes, in a new folder with a metadata.jsonl.

    Beside each caption stand the same in few words and what was said before. Stopped, the same command begins again.
    """

    data: Annotated[tyro.conf.Positional[str], flag("FOLDER")]
    """Pictures in any layout that `diorama train` reads, but for shards; they are not changed."""
    out: Annotated[str, flag("DIR", "-o")]
    """The new folder."""
    captioner: Annotated[str, flag("DIR")]
    """What `diorama train captioner` wrote, on captioned pictures of this kind."""
    blend: float = 0.95
    """Share of the pictures with a new caption; the others keep their own, and a model the way people write."""
    seed: int = 0
    """Of which keep theirs."""
    copy: Annotated[bool, flag()] = False
    """Copy files where they could be linked."""
    on_white: Annotated[bool, flag()] = False
    """The pictures' RGB is already laid on white, alpha is only a mask."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def run(self) -> int:
        from diorama.data import open_data  # torch, from here on
        from diorama.data.recaption import recaption
        from diorama.networks.precision import ground
        from diorama.systems.base import load_system
        from diorama.systems.understanding.captioner import Captioner
        from diorama.types import Noise

        use_all_cores()
        out = _beside(self.data, self.out)
        system = load_system(find_model(self.captioner))
        if not isinstance(system, Captioner):
            raise UserError(f"{self.captioner} is a saved {system.card.slug}, which writes no captions: give a saved captioner")
        system.to(ground(self.device, "float32").device)
        source = open_data(self.data, on_white=self.on_white)

        def writes(form: str) -> Describe:
            return lambda image: system.caption(image, form, noise=Noise(range(len(image)), system.device))

        with steps_bar("captioning") as on_step:
            made = recaption(
                source,
                out,
                writes("descriptive"),
                writes("short"),
                system.image.config.size,
                blend=self.blend,
                seed=self.seed,
                copy=self.copy,
                on_step=on_step,
            )
        print(f"{sum(made.renamed):>9,}  of {len(made):,} captions in {out} are new, as {made.captions[0]!r}")
        return 0


def _beside(data: str, out: str) -> Path:
    """The folder to write. Raises UserError where it lies in the one that is read."""
    if Path(out).resolve().is_relative_to(Path(data).resolve()):
        raise UserError(f"{out} lies in {data}, whose pictures are read: name a folder beside it")
    return Path(out)


EXAMPLES = {"fit": "10% or 0.2", "area": "0.02, on either side of two dots"}


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{name} {text!r} is no number: give one such as {EXAMPLES[name]}") from None


Data = (
    Annotated[Look, tyro.conf.subcommand("look")]
    | Annotated[Clean, tyro.conf.subcommand("clean")]
    | Annotated[Recaption, tyro.conf.subcommand("recaption")]
)

__all__ = ["Data"]
