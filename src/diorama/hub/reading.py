"""How a folder of diffusers or transformers is read: in float32, whole or not at all, and what is wrong in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diorama.errors import UserError

PLAIN = ("model.safetensors", "diffusion_pytorch_model.safetensors")
WORDS = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # what a tokenizer is read from, one or the other


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """What hinders reading this folder, as a UserError: a library that is not here, a part that is missing or damaged."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not there: fetch the checkpoint again, all of it")
    try:
        with _quiet():
            yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(
            f"a checkpoint of diffusers or transformers needs more than is here ({error}): pip install 'diorama[hub]'"
        ) from error
    except Exception as error:  # each of the libraries raises its own
        line = str(error).strip().partition("\n")[0]
        raise UserError(f"{folder} cannot be read ({line}): fetch the checkpoint again") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, neither library talks: what matters is told as an error, and the verbs have bars of their own."""
    from diffusers.utils import logging as one
    from transformers.utils import logging as other

    before = one.get_verbosity(), other.get_verbosity(), one.is_progress_bar_enabled(), other.is_progress_bar_enabled()
    for log in (one, other):
        log.set_verbosity(log.CRITICAL)
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, verbosity, barred in zip((one, other), before[:2], before[2:], strict=True):
            log.set_verbosity(verbosity)
            if barred:
                log.enable_progress_bar()


def read_model(kind: Any, folder: Path, **how: Any) -> Any:
    """A network in float32, all of whose weights are in its file. Raises UserError where some are not; pickles are never read."""
    if not any((folder / name).is_file() for name in PLAIN):
        raise UserError(
            f"{folder} has no {' or '.join(PLAIN)}: weights in pickles, shards or variants such as .fp16 are not read"
        )
    model, about = kind.from_pretrained(
        folder.resolve(), local_files_only=True, use_safetensors=True, output_loading_info=True, **how
    )
    if off := [*about["missing_keys"], *about["mismatched_keys"]]:
        raise UserError(
            f"the weights in {folder} are not those of its config ({len(off)} are missing or other, such as {off[0]})"
        )
    return model


def read_tokenizer(folder: Path, pieces: int) -> Any:
    """CLIP's tokenizer, of so many pieces: transformers makes an empty one where its files are not there."""
    with told(folder):
        from transformers import CLIPTokenizer

        if not any(all((folder / name).is_file() for name in names) for names in WORDS):
            raise UserError(
                f"{folder} has neither {' nor '.join(' with '.join(names) for names in WORDS)}: fetch the checkpoint again"
            )
        tokenizer = CLIPTokenizer.from_pretrained(folder.resolve(), local_files_only=True)
    if len(tokenizer) != pieces:
        raise UserError(f"{folder} knows {len(tokenizer)} pieces, the text tower {pieces}: fetch the checkpoint again")
    return tokenizer
