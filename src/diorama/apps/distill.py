"""`diorama distill`: a few steps in the place of a model's many."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from diorama.apps.flags import flag
from diorama.apps.generate import read_prompts
from diorama.apps.learning import check, load_painter, planned
from diorama.apps.output import check_new, find_model, free, steps_bar
from diorama.apps.train import progress, say
from diorama.files import user_cache
from diorama.models import ADAPTER
from diorama.recipe import Request


@dataclass(frozen=True, kw_only=True)
class Distill:
    """Teach a model to paint in a few evaluations, without guidance, what takes it many.

    First it walks its own guided way for these sentences, then an adapter learns where that leads. Both are kept in the user's cache
    until the end: the same command goes on where it was interrupted. `diorama generate --adapter` puts the adapter on the model.
    """

    prompts: Annotated[tyro.conf.Positional[str], flag("FILE")]
    """Sentences such as will be asked, one a line, or .jsonl with a "prompt" and a "style" per line; thousands are best."""
    out: Annotated[str | None, flag("DIR", "-o")] = None
    """Where the adapter goes; a new folder "fast" here where not given."""
    system: Annotated[str, flag("NAME|DIR")] = "default"
    """The model that learns: a shipped one, or the folder of a saved one."""
    into: int = 4
    """Evaluations a picture."""
    paths: int = 2880
    """Pictures that it paints to learn from: one for each sentence, and around again."""
    rank: int = 16
    """Width of the adapter's layers."""
    steps: Annotated[int | None, flag("INT")] = None
    """Of training; 1200 where not given."""
    lr: Annotated[float | None, flag("FLOAT")] = None
    """Learning rate; 0.002 where not given."""
    seed: int = 0
    """Of the paths and of training."""
    device: str = "auto"
    """auto, cpu or cuda."""
    dtype: str = "auto"
    """auto, float32 or bfloat16."""

    def run(self) -> int:
        check(self, {"into": (self.into, 1), "paths": (self.paths, 1)})
        rows = read_prompts(self.prompts)
        find_model(self.system)
        out = free(Path("fast")) if self.out is None else Path(self.out)
        check_new(out, ADAPTER)  # before minutes of work
        from diorama.data.encoded import fingerprint  # torch, from here on
        from diorama.systems.images.few_step import PLAN, FewStep

        model, painter = load_painter(self, "distilled")
        asked = [model.resolve(Request(prompt=row["prompt"], style=row.get("style"))) for row in rows]
        plan = planned(PLAN, self)
        work = user_cache("distill") / fingerprint(model.weights, asked, self.paths, self.into, self.rank, plan)
        system = FewStep(painter, self.into, self.rank)
        with steps_bar("painting") as on_walk, progress(plan) as on_step:
            sentences = [(request.prompt, request.style) for request in asked]
            system.learn(sentences, plan, self.paths, work, on_walk=on_walk, on_step=on_step, **model.defaults)
        system.save_pretrained(out, base=model.name, weights=model.weights, paths=self.paths, training_steps=plan.steps)
        shutil.rmtree(work)
        say(f'now: diorama generate "{sentences[0][0]}" --adapter {out}')
        print(out)
        return 0
