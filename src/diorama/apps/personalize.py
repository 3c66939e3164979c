"""`diorama personalize`: one subject, from a few pictures of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from diorama.apps.flags import flag
from diorama.apps.learning import check, load_painter, planned
from diorama.apps.output import check_new, find_model, free, slug, steps_bar
from diorama.apps.train import progress, say
from diorama.models import ADAPTER, INDEX

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Personalize:
    """Teach a model one subject from a few pictures of it, so that sentences can put it anywhere (DreamBooth).

    Writes an adapter, a megabyte or two that `diorama generate --adapter` puts on the model; with --full a model of its own.
    """

    pictures: Annotated[tyro.conf.Positional[str], flag("FOLDER")]
    """2 to 50 pictures of the subject, best 3 to 6 on different grounds."""
    words: Annotated[str, flag('"WORD CLASS"', name="as")]
    """What to call it: a word without a meaning, then what it is, as in "sks toy"."""
    out: Annotated[str | None, flag("DIR", "-o")] = None
    """Where it goes; a new folder here, named after the words, where not given."""
    system: Annotated[str, flag("NAME|DIR")] = "default"
    """The model that learns: a shipped one, the folder of a saved one or of a checkpoint of diffusers, or hub:OWNER/NAME."""
    full: Annotated[bool, flag()] = False
    """All of its network learns, and a whole model is written."""
    rank: int = 8
    """Width of the adapter's layers."""
    prior: int = 100
    """Pictures of the class that the model paints first, and keeps in mind; 0 is none, and then the class turns into the subject."""
    steps: Annotated[int | None, flag("INT")] = None
    """Of training; 400 where not given, 1,000 for a network as large as Stable Diffusion's."""
    lr: Annotated[float | None, flag("FLOAT")] = None
    """Learning rate; 0.002 where not given, 0.0003 with --full; for a large network 0.0001 and 0.000005."""
    seed: int = 0
    """Of the class pictures and of training."""
    device: str = "auto"
    """auto, cpu or cuda."""
    dtype: str = "auto"
    """auto, float32 or bfloat16."""

    def run(self) -> int:
        check(self, {"prior": (self.prior, 0)})
        find_model(self.system)
        out = free(Path(slug(self.words))) if self.out is None else Path(self.out)
        check_new(out, INDEX if self.full else ADAPTER)  # before minutes of work
        from diorama.systems.images.dreambooth import DreamBooth, Words, plan_for  # torch, from here on

        words, (model, painter) = Words.of(self.words), load_painter(self, "personalised")
        image = _read(Path(self.pictures), model.size)
        if self.full:
            painter.check_apart(out)
        plan = planned(plan_for(painter, self.full), self)
        system = DreamBooth(painter, words, 0 if self.full else self.rank)
        with steps_bar("painting the class") as on_paint, progress(plan) as on_step:
            system.learn(image, plan, self.prior, on_paint=on_paint, on_step=on_step, **model.defaults)
        if self.full:
            model.save_pretrained(out, name=out.resolve().name)
        else:
            system.save_pretrained(out, base=model.name, weights=model.weights, sentence=words.subject, steps=plan.steps)
        say(f'now: diorama generate "{words.subject} on a green ground" --{"system" if self.full else "adapter"} {out}')
        print(out)
        return 0


def _read(folder: Path, size: int) -> Tensor:
    """The pictures (k, 4, size, size). Raises UserError where they are too few, too many or cannot be read."""
    from diorama.data.batches import Batches
    from diorama.data.open import open_data
    from diorama.systems.images.dreambooth import check_pictures

    source = open_data(folder)
    check_pictures(len(source))
    batches = Batches(source, size, len(source), 0, ordered=True, limit=0)
    return batches(0, stop=len(source)).image
