"""Sentences about clips, and back: what each thing does, what meets what, and how the camera goes.

What moves is said of the world, not of the picture: "a red circle moves to the left" is true under a camera that follows it.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from diorama.errors import UserError
from diorama.types import mix
from diorama.worlds.captions import Description, Said, caption, parse
from diorama.worlds.clips import LAWS, SPEEDS, WAYS, Change, Clip, Shot
from diorama.worlds.scene import COLOURS, Scene
from diorama.worlds.shapes import SHAPES

FORMS = ("still", "short", "long")
CAMERA_WORDS = {
    "left": "the camera pans to the left",
    "right": "the camera pans to the right",
    "up": "the camera moves up",
    "down": "the camera moves down",
    "in": "the camera zooms in",
    "out": "the camera zooms out",
    "shake": "the camera shakes",
    "still": "the camera stands still",
}
VERBS = {"stays": "does not move", "falls": "falls", "bounces": "bounces"}
VERBS |= {"clockwise": "spins clockwise", "anticlockwise": "spins anticlockwise", "grows": "grows", "shrinks": "shrinks"}
VERBS |= {f"moves {way}": f"moves {way}" for way in WAYS}
VERBS |= {f"moves {speed} {way}": f"moves {speed} {way}" for speed in SPEEDS if speed for way in WAYS}
VERBS |= {f"becomes {shape}": f"turns into a {shape}" for shape in SHAPES} | {f"becomes {c}": f"turns {c}" for c in COLOURS}


@dataclass(frozen=True)
class Actor:
    """One thing of a clip: what it is in the first frame and what it does, as keys of VERBS."""

    shape: str | None
    colour: str | None
    size: str | None
    texture: str | None
    x: float
    y: float
    does: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Story:
    """What happens in a clip, as the clip itself or who watches it tells it; of its first frame it is a `captions.Account`."""

    named: tuple[Actor, ...] = ()
    camera: str | None = None
    hits: frozenset[tuple[int, int]] = frozenset()  # (i, j) and (j, i) in `named`: these collide
    style: str | None = None
    tone: str | None = None
    behind_named: tuple[tuple[int, int], ...] = ()
    readable: bool = True


@dataclass(frozen=True)
class Telling:
    """What a sentence about a clip claims."""

    what: Description  # of the first frame
    does: tuple[tuple[Said, str], ...] = ()
    hits: tuple[tuple[Said, Said], ...] = ()
    camera: str | None = None

    def claims(self, story: Story) -> list[bool]:
        """Each single claim, true or not of this story."""
        fits = {
            said: [i for i, a in enumerate(story.named) if said.fits(a)] for pair in (*self.does, *self.hits) for said in pair[:1]
        }
        found = self.what.claims(story)
        found += [any(verb in story.named[i].does for i in fits[said]) for said, verb in self.does]
        found += [any(a.fits(story.named[i]) and b.fits(story.named[j]) for i, j in story.hits) for a, b in self.hits]
        return found + ([self.camera == story.camera] if self.camera else [])

    def true_of(self, story: Story) -> bool:
        """Whether every claim holds."""
        return all(self.claims(story))


# --- a clip's own story ---------------------------------------------------------------------------


def story(clip: Clip) -> Story:
    """What truly happens in the clip's first shot; a clip with a cut has no more to tell than that."""
    shot, _, end = clip.spans()[0]
    seconds = (end - 1) / clip.fps  # from the first picture to the last: what is seen
    made, things = shot.scene, [k for k, thing in enumerate(shot.scene.things) if thing.subject is None]
    contacts = shot.course(end / clip.fps).contacts
    seen = [c for c in contacts if 1 / clip.fps <= c.time <= seconds - 1 / clip.fps and c.speed >= CLEARLY]
    actors = []
    for k in things:
        t = made.things[k]
        does = _does(shot, k, seconds) | ({"bounces"} if any(c.discs == (k,) for c in seen) else set())
        actors.append(Actor(t.shape, t.colour, t.size, t.texture, t.x, t.y, frozenset(does)))
    met = [tuple(map(things.index, c.discs)) for c in seen if len(c.discs) == 2 and set(c.discs) <= set(things)]
    hits = frozenset(pair for a, b in met for pair in ((a, b), (b, a)))
    return Story(tuple(actors), shot.camera.kind, hits, made.style, made.tone)


CLEARLY = 0.25  # sides per second at which things must meet for a sentence to say so
FALL = 0.1  # sides that a thing must drop to be said to fall


def _does(shot: Shot, k: int, seconds: float) -> set[str]:
    motion, does = shot.motions[k], {f"becomes {change.word}" for change in shot.changes if change.thing == k}
    if motion.spin:
        does.add("clockwise" if motion.spin > 0 else "anticlockwise")
    if motion.growth != 1:
        does.add("grows" if motion.growth > 1 else "shrinks")
    course = shot.course(seconds)
    if LAWS[shot.law].gravity:
        lowest = max(course.at(k, seconds * i / 32).y for i in range(33))
        return does | ({"falls"} if lowest - course.at(k, 0).y > FALL else set())
    return does if any(k in contact.discs for contact in course.contacts) else does | drift(motion.vx, motion.vy)


def drift(vx: float, vy: float, off: float = 12.0) -> set[str]:
    """How something on a straight way goes, with and without its speed; nothing where it is `off` degrees from the nearest way."""
    speed, angle = math.hypot(vx, vy), math.degrees(math.atan2(vy, vx))
    if speed < SPEEDS["slowly"] / 2:
        return {"stays"}
    number = round(angle / 45)
    if abs(angle - 45 * number) > off:
        return set()
    way, word = list(WAYS)[number % 8], min(SPEEDS, key=lambda name: abs(math.log(SPEEDS[name] / speed)))
    return {f"moves {way}"} | ({f"moves {word} {way}"} if word else set())


# --- story to words, and back ---------------------------------------------------------------------


def describe(clip: Clip, seed: int = 0, form: str | None = None, told: Story | None = None) -> str:
    """One true sentence about the clip, the same for the same (clip, seed); of one with the defect "mistold", a false one.

    "still" names the things and nothing that happens, "short" one or two things with one doing each, "long" everything: of the
    clip's own story, or of this one. Raises UserError for an unknown form.
    """
    if form is not None and form not in FORMS:
        raise UserError(f"form {form!r} is not known: use {', '.join(FORMS)}")
    rng = random.Random(mix(clip.seed, clip.index, seed, 0xC115))
    chosen = form or FORMS[sum(rng.random() > end for end in (0.15, 0.6))]
    made, told = clip.shots[0].scene, told or story(clip)
    if clip.defect == "mistold":
        made = _recoloured(made, clip.shots[0].changes)
    named = [caption(replace(made, things=(t,), behind=()), mix(seed, k), "short") for k, t in enumerate(made.named)]
    if not named:
        return caption(made)
    if chosen == "still":
        return ", and ".join(named)
    parts = [_sentence(name, sorted(actor.does), chosen, rng) for name, actor in zip(named, told.named, strict=True)]
    if chosen == "short":
        parts = parts[:2]
    for i, j in sorted(pair for pair in told.hits if pair[0] < pair[1])[: 1 if chosen == "short" else None]:
        parts.append(f"{named[i]} hits {named[j]}")
    if told.camera != "still" and (chosen == "long" or rng.random() < 0.5):
        parts.append(CAMERA_WORDS[str(told.camera)])
    return ", and ".join(parts)


def _recoloured(made: Scene, changes: Sequence[Change]) -> Scene:
    """The scene in colours that nothing in the clip ever has: whatever is said of its things is false."""
    taken = {thing.colour for thing in made.named} | {change.word for change in changes}
    free = [colour for colour in COLOURS if colour not in taken]
    return replace(made, things=tuple(replace(t, colour=free[k % len(free)]) for k, t in enumerate(made.things)))


def _sentence(name: str, does: Sequence[str], form: str, rng: random.Random) -> str:
    """The thing with what it does: of a way with and without its speed, the one that says more."""
    said = [verb for verb in does if not any(set(verb.split()) < set(other.split()) for other in does)]
    if form == "short" and does:
        said = [does[int(rng.random() * len(does))]]
    return f"{name} {' and '.join(VERBS[verb] for verb in said)}" if said else name


_VERBS = {words: verb for verb, words in VERBS.items()}
_CAMERAS = {words: kind for kind, words in CAMERA_WORDS.items()}
_VERB = re.compile(rf"(?:^| )(?:and )?(?P<verb>{'|'.join(re.escape(w) for w in sorted(_VERBS, key=len, reverse=True))})$")


def parse_clip(words: str) -> Telling:
    """What a sentence about a clip claims. Raises UserError, in one line, where it is none of this grammar's."""
    does: list[tuple[Said, str]] = []
    hits: list[tuple[Said, Said]] = []
    things: list[Said] = []
    camera = None
    for clause in re.split(r", (?:and )?", " ".join(words.lower().split()).rstrip(".")):
        if clause in _CAMERAS:
            camera = _CAMERAS[clause]
        elif " hits " in clause:
            first, second = (_one(part) for part in clause.split(" hits ", 1))
            hits.append((first, second))
        else:
            verbs = []
            while verb := _VERB.search(clause):
                verbs.append(_VERBS[verb["verb"]])
                clause = clause[: verb.start()]
            things.append(_one(clause))
            does += [(things[-1], verb) for verb in verbs]
    return Telling(Description(tuple(dict.fromkeys(things))), tuple(does), tuple(hits), camera)


def _one(phrase: str) -> Said:
    read = parse(phrase)
    if len(read.things) != 1 or read.relations or read.absent:
        raise UserError(f"{phrase[:40]!r} is not one thing: write as in 'a red circle falls; a blue star moves up'")
    return read.things[0]
