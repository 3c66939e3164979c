"""The command line. Arguments are parsed before torch is imported; every verb lives in a module of its own."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from diorama import __version__
from diorama.errors import UserError


@dataclass(frozen=True)
class Verb:
    """Where a verb lives, and what it does in one line."""

    module: str
    name: str  # of the dataclass of its arguments, which has a `run() -> int`, or of a choice of several
    does: str


VERBS = {
    "generate": Verb("generate", "Generate", "pictures from sentences, each a PNG with its recipe inside"),
    "replay": Verb("replay", "Replay", "the same picture again from its recipe, bit for bit"),
    "animate": Verb("animate", "Animate", "a clip from a sentence, or from a picture that is its first frame"),
    "personalize": Verb("personalize", "Personalize", "teach a model one subject from a few pictures of it"),
    "distill": Verb("distill", "Distill", "teach a model to paint in a few steps what takes it many"),
    "train": Verb("train", "Train", "train a system on your own pictures; resumes by itself"),
    "data": Verb("data", "Data", "look at a folder or shards of pictures, or clean them: what to keep, and why the rest goes"),
    "plan": Verb("plan", "Plan", "what training would take: memory per GPU, FLOPs, days, and what that assumes"),
    "lift": Verb("lift", "Lift", "photographs with their cameras to a scene, a .ply"),
    "look": Verb("lift", "Look", "a scene from all sides: an animation or a sheet"),
    "segment": Verb("segment", "Segment", "masks of what a point or a box means in a picture, or of everything in it"),
    "score": Verb("score", "Score", "how good pictures are: alone, beside their captions, beside real ones"),
    "foundations": Verb("foundations", "Foundations", "the trained models in miniature: a list, or one of them made again"),
    "world": Verb("world", "World", "the miniature world: pictures, views, clips, sounds, figures, with their exact truth"),
    "verify": Verb("verify", "Verify", "what a system claims, run and judged: holds, fails or undecided"),
    "systems": Verb("catalogue", "Systems", "every system there is"),
    "show": Verb("catalogue", "Show", "one system or saved model: card, parts, presets, parameters"),
}

INTERRUPTED = 130  # 128 + SIGINT, what a shell expects
CLOSED = 141  # 128 + SIGPIPE
NO_MEMORY = re.compile(r"not enough memory|can't allocate memory|out of memory")  # as RuntimeErrors of torch say it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0, 2 for a mistake of the user's, 1 for any other failure, 130 when interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    warnings.filterwarnings("ignore", "Image size .* could be decompression bomb")  # we refuse those ourselves, in one line
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except UserError as error:
        return _fail(error, 2)
    except KeyboardInterrupt as error:
        return _fail(f"interrupted{f': {error}' if str(error) else ''}", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone: nothing more to say at exit
        return CLOSED
    except Exception as error:
        if os.environ.get("DIORAMA_DEBUG"):
            raise
        return _fail(_unexpected(error), 1)


def _run(arguments: Sequence[str]) -> int:
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help", "help"):
        print(_help())
        return 0
    if name in ("--version", "-V"):
        print(f"diorama {__version__}")
        return 0
    if name not in VERBS:
        near = get_close_matches(name, VERBS, 1)
        raise UserError(f"{name!r} is not a verb: " + (f"did you mean {near[0]}?" if near else f"use {', '.join(VERBS)}"))
    command = _parse(name, rest)
    return command if isinstance(command, int) else command.run()


def _parse(name: str, arguments: Sequence[str]) -> Any:
    """The verb's dataclass filled in, or the exit code of its --help. Raises UserError, in one line, for a wrong flag."""
    import contextlib
    import io

    import tyro

    verb = VERBS[name]
    kind = getattr(import_module(f"diorama.apps.{verb.module}"), verb.name)
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            config = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
            return tyro.cli(kind, prog=f"diorama {name}", args=list(arguments), config=config)
    except SystemExit as end:
        if not end.code:
            return 0
        raise UserError(f"{_gist(told.getvalue())} (see diorama {name} --help)") from None


def _gist(box: str) -> str:
    """The first paragraph of tyro's message, as one line. Where a terminal knows ASCII alone, a title stands before it."""
    rows = [line.strip("│ ").strip() for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    paragraphs = re.split(r"[─-]{3,}", " ".join(rows))
    told = paragraphs[0] if "╭" in box or len(paragraphs) == 1 else paragraphs[1]
    return " ".join(told.split()) or "these arguments cannot be read"


def _help() -> str:
    wide = max(map(len, VERBS))
    lines = [f"  {name:<{wide}}  {verb.does}" for name, verb in VERBS.items()]
    first = ["diorama: generative systems in miniature", "", "usage: diorama VERB ...", ""]
    last = ["", "diorama VERB --help says more; DIORAMA_DEBUG=1 shows tracebacks.", 'Begin with: diorama generate "a red apple"']
    return "\n".join([*first, *lines, *last])


def _fail(words: object, code: int) -> int:
    line = " ".join(str(words).split())
    print(f"diorama: {'' if code == INTERRUPTED else 'error: '}{line}", file=sys.stderr)
    return code


def _unexpected(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror.lower()}{f': {error.filename}' if error.filename else ''}"
    if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
        return "not enough memory: ask for fewer or smaller pictures"
    first = (str(error).splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {first} (this is not your mistake: DIORAMA_DEBUG=1 shows where)"


if __name__ == "__main__":
    sys.exit(main())
