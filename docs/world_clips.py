"""Draw docs/pictures/world-clips.png, or measure what docs/world-clips.md says of clips.

python docs/world_clips.py                     writes the picture
python docs/world_clips.py --measure 32 8 100  reads 100 clips of 8 frames at 32 px back, and times them
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from diorama.pictures import labelled, sheet
from diorama.scenes.cameras import orbit
from diorama.worlds.clips import Clip, ClipRules, clip
from diorama.worlds.film import animation, film
from diorama.worlds.motions import describe, parse_clip
from diorama.worlds.sound import audible, listen, matched, sound
from diorama.worlds.stage import STAGED, staged
from diorama.worlds.watching import watch

PICTURE = Path(__file__).parent / "pictures" / "world-clips.png"
SHOWN = (11, 1, 10, 0, 24, 20)  # of the world 2


def draw() -> None:
    """Six clips, every second frame, each with its sentence."""
    rows = []
    for index in SHOWN:
        made = clip(2, index)
        strip = sheet(animation(made, 64)[::2], columns=8)
        rows.append(labelled(strip, describe(made, form="long")).crop((0, 0, strip.width, strip.height + 30)))
    sheet(rows, columns=1, gap=6).quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=8).save(PICTURE, optimize=True)
    print(f"{PICTURE}  {PICTURE.stat().st_size / 1000:.0f} kB")


def measure(size: int, frames: int, n: int) -> None:
    """How fast clips are made, and what share of what is said of them the oracle of motion and the ear read back."""
    rules = ClipRules(frames=frames, hidden=True)
    clips = _timed("clips", [lambda i=i: clip(7, i, rules) for i in range(n)])
    films = _timed("films", [lambda made=made: film(made, size) for made in clips])
    _timed("flows", [seen.flow for seen in films])
    camera = orbit(4 * frames, size=size).rows(slice(frames))
    moving = [clip(7, i, replace(STAGED, frames=frames)) for i in range(n)]
    tours = _timed("films in space", [lambda made=made: staged(made, camera) for made in moving])
    _timed("flows in space", [seen.flow for seen in tours])
    sounds = _timed("sounds", [lambda made=made: sound(made) for made in clips])
    heard = _timed("listened to", [lambda wave=wave: listen(wave) for wave in sounds])
    stories = _timed("watched", [lambda seen=seen: watch(seen.image, rules.fps) for seen in films])
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for made, told, found in zip(clips, stories, heard, strict=True):
        for name, true in [*_read(made, told), *(("heard", m is not None) for _, m in matched(found, audible(made)))]:
            right[name], total[name] = right[name] + true, total[name] + 1
    extra = sum(map(len, heard)) - right["heard"]
    print("\n".join(f"{name:14} {right[name]:5} of {total[name]:5}  {right[name] / total[name]:.1%}" for name in sorted(total)))
    print(f"heard, not there {extra}")


def _timed(name: str, jobs: list) -> list:
    """The results of the jobs, and on paper how many were done in a second of the processor."""
    start = time.process_time()
    done = [job() for job in jobs]
    print(f"{name}: {len(jobs) / (time.process_time() - start):.0f}/s")
    return done


def _read(made: Clip, told) -> Iterator[tuple[str, bool]]:
    """Each claim of the clip's long sentence by its kind, and whether the oracle of motion agrees."""
    yield "readable", told.readable
    if not told.readable:
        return
    said = parse_clip(describe(made, form="long"))
    for thing, verb in said.does:
        yield verb.split()[0], any(verb in actor.does for actor in told.named if thing.fits(actor))
    for a, b in said.hits:
        yield "hits", any(a.fits(told.named[i]) and b.fits(told.named[j]) for i, j in told.hits)
    yield f"camera {made.shots[0].camera.kind}", made.shots[0].camera.kind == told.camera
    yield "whole sentence", said.true_of(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--measure", nargs=3, type=int, metavar=("SIZE", "FRAMES", "N"), help="draw nothing, and time and read clips"
    )
    asked = parser.parse_args().measure
    torch.set_num_threads(1)
    if asked:
        measure(*asked)
    else:
        draw()


if __name__ == "__main__":
    main()
