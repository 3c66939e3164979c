"""What a clip is, before anyone films it: a scene whose things move, seen by a camera; plain frozen data from (seed, index, rules).

Lengths are shares of the picture's side, times are seconds, angles degrees clockwise. The words of a thing are those of its first frame.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from diorama.errors import UserError
from diorama.types import mix
from diorama.worlds.physics import Course, Law, State, course
from diorama.worlds.scene import SIZES, TEXTURES, Rules, Scene, Thing, scene
from diorama.worlds.shapes import REACH, TURNS

LAWS = {"drift": Law(solid=False), "box": Law(), "fall": Law(gravity=1.6)}
CAMERAS = ("still", "left", "right", "up", "down", "in", "out", "shake")  # the way the window goes over the world
MATERIALS = dict(zip(TEXTURES, ("rubber", "wood", "glass", "metal"), strict=True))
DEFECTS = ("static", "cut", "banner", "dull", "flicker", "mistold")
WAYS = {  # the eight ways of a thing that drifts
    "to the right": 0,
    "down and to the right": 45,
    "down": 90,
    "down and to the left": 135,
    "to the left": 180,
    "up and to the left": 225,
    "up": 270,
    "up and to the right": 315,
}
SPEEDS = {"slowly": 0.16, "": 0.30, "quickly": 0.50}  # sides per second
DISC = {"circle": 0.92, "ring": 0.98}  # how far these reach, in radii; the others are taken to reach REACH all round
LEAST_RADIUS = 0.09  # of a thing that shrinks: 6 px at 32
MOST_FRAMES = 256
WORDS = ("BREAKING NEWS", "SUBSCRIBE NOW", "LIVE FROM HERE", "SALE ENDS TODAY", "COPY, DO NOT USE")


@dataclass(frozen=True, kw_only=True)
class Motion:
    """How one thing sets out."""

    vx: float = 0.0  # sides per second
    vy: float = 0.0
    spin: float = 0.0  # degrees per second
    growth: float = 1.0  # the radius is multiplied by this every second
    material: str = MATERIALS["plain"]


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A window of one side by one side on the flat world, which sets out in the middle."""

    kind: str = "still"
    vx: float = 0.0  # sides of the world per second
    vy: float = 0.0
    zoom: float = 1.0  # everything looks this much larger every second
    shake: float = 0.0  # sides
    phase: float = 0.0  # radians, of the shaking

    def window(self, time: float) -> tuple[float, float, float]:
        """The middle of the window in the world, and its zoom."""
        turn = 2 * math.pi * 2.7 * time
        sway = [self.shake * (math.sin(k * turn + self.phase) - math.sin(self.phase)) for k in (1.0, 1.31)]
        return 0.5 + self.vx * time + sway[0], 0.5 + self.vy * time + sway[1], self.zoom**time


@dataclass(frozen=True, kw_only=True)
class Change:
    """From `frame` on (counted in its shot), a thing has another shape or colour."""

    frame: int
    thing: int
    field: str  # "shape" or "colour"
    word: str


@dataclass(frozen=True, kw_only=True)
class Shot:
    """What is filmed without a cut."""

    scene: Scene  # as it is at time 0
    motions: tuple[Motion, ...]
    law: str = "drift"
    keep: float = 1.0  # the share of its speed that a thing has after a bounce
    camera: Camera = Camera()
    changes: tuple[Change, ...] = ()

    def course(self, seconds: float) -> Course:
        """Where the centres go, and what meets what, for this long."""
        return _course(self, seconds)

    def world(self, frame: int, fps: float, course: Course) -> Scene:
        """The world at a frame of the shot, as a camera that stands still would see it."""
        time = frame / fps
        things = list(self.scene.things)
        for k, motion in enumerate(self.motions):
            now, turn = course.at(k, time), motion.spin * time
            things[k] = replace(
                things[k],
                x=now.x,
                y=now.y,
                radius=things[k].radius * motion.growth**time,
                angle=things[k].angle + turn,
                grain=things[k].grain + turn,
            )
        for change in self.changes:
            if frame >= change.frame:
                old = things[change.thing]
                things[change.thing] = (
                    replace(old, shape=change.word) if change.field == "shape" else replace(old, colour=change.word)
                )
        return replace(self.scene, things=tuple(things), behind=())

    def seen(self, frame: int, fps: float, course: Course) -> Scene:
        """The same through the window: places and radii in the picture."""
        x, y, zoom = self.camera.window(frame / fps)
        world = self.world(frame, fps, course)
        return replace(
            world,
            things=tuple(
                replace(t, x=(t.x - x) * zoom + 0.5, y=(t.y - y) * zoom + 0.5, radius=t.radius * zoom) for t in world.things
            ),
        )


@lru_cache(256)
def _course(shot: Shot, seconds: float) -> Course:
    starts = [State(0.0, t.x, t.y, m.vx, m.vy) for t, m in zip(shot.scene.things, shot.motions, strict=True)]
    return course(starts, [disc(t) for t in shot.scene.things], LAWS[shot.law]._replace(keep=shot.keep), seconds)


def _material(thing: Thing) -> str:
    """What a thing sounds like: one of a rare texture as if it were plain."""
    return MATERIALS.get(thing.texture, MATERIALS["plain"])


def disc(thing: Thing) -> float:
    """The radius of the disc as which a thing bounces; a shape it turns into may be a little larger."""
    return thing.radius * DISC.get(thing.shape, REACH)


@dataclass(frozen=True)
class Event:
    """Something that happens at a moment: a "bounce", a "collision", a change of "shape" or "colour", a "cut".

    `frame` is the nearest to `time`; a change and a cut are first seen in it. `things` counts in the shot's scene.
    """

    kind: str
    time: float  # seconds from the clip's start
    frame: int
    things: tuple[int, ...] = ()
    materials: tuple[str, ...] = ()  # of these things
    speed: float = 0.0  # sides per second at which they met


@dataclass(frozen=True, kw_only=True)
class Clip:
    """`frames` pictures at `fps` a second. A shot ends where the next one starts; only a defective clip has two."""

    seed: int
    index: int
    frames: int
    fps: float
    shots: tuple[Shot, ...]
    starts: tuple[int, ...] = (0,)  # the first frame of each shot
    defect: str | None = None  # one of DEFECTS
    banner: str = ""  # the words of that defect

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    @property
    def cuts(self) -> tuple[int, ...]:
        """The frames before which the picture changes altogether."""
        return self.starts[1:]

    def spans(self) -> list[tuple[Shot, int, int]]:
        """Each shot with its first frame and the one after its last."""
        return list(zip(self.shots, self.starts, (*self.cuts, self.frames), strict=True))

    def scenes(self) -> list[Scene]:
        """What the camera sees in every frame, ready for `render.render`."""
        return [
            shot.seen(i, self.fps, shot.course((end - start) / self.fps))
            for shot, start, end in self.spans()
            for i in range(end - start)
        ]

    def windows(self) -> list[tuple[float, float, float]]:
        """The camera's window in every frame: its middle in the world and its zoom."""
        return [shot.camera.window(i / self.fps) for shot, start, end in self.spans() for i in range(end - start)]

    def events(self) -> list[Event]:
        """Everything that happens, in order."""
        found = [Event("cut", start / self.fps, start) for start in self.cuts]
        for shot, start, end in self.spans():
            first = start / self.fps
            for contact in shot.course((end - start) / self.fps).contacts:
                kind, time = ("bounce", "collision")[len(contact.discs) - 1], first + contact.time
                materials = tuple(shot.motions[k].material for k in contact.discs)
                found.append(Event(kind, time, round(time * self.fps), contact.discs, materials, contact.speed))
            for change in shot.changes:
                frame = start + change.frame
                found.append(Event(change.field, frame / self.fps, frame, (change.thing,)))
        return sorted(found, key=lambda event: event.time)


# --- which clips may come -------------------------------------------------------------------------


FEW = Rules(most=3, subjects=0.0)


@dataclass(frozen=True, kw_only=True)
class ClipRules:
    """Which clips may come. A camera moves only over a "noise" ground, where its motion can be seen."""

    frames: int = 16
    fps: float = 8.0
    world: Rules = FEW
    laws: tuple[str, ...] = tuple(LAWS)
    cameras: tuple[str, ...] = CAMERAS
    moving: float = 0.4  # how often the camera moves, where it may
    changes: float = 0.3  # how often a thing changes its shape or its colour
    keep: float = 1.0  # the share of speed after a bounce
    hidden: bool = False  # a thing's material has nothing to do with its texture: only its sound tells it
    defects: tuple[str, ...] = DEFECTS
    defective: float = 0.0  # how often a clip has one of them

    def __post_init__(self) -> None:
        if isinstance(self.world, Mapping):  # its fields, as plain data has them
            object.__setattr__(self, "world", Rules(**self.world))
        if not 1 <= self.frames <= MOST_FRAMES:
            raise UserError(f"a clip of {self.frames} frames is not possible: use 1 to {MOST_FRAMES}")
        if not 1 <= self.fps <= 60:
            raise UserError(f"{self.fps} frames a second are not possible: use 1 to 60")
        for name, known in (("laws", tuple(LAWS)), ("cameras", CAMERAS), ("defects", DEFECTS)):
            if not getattr(self, name) or not set(getattr(self, name)) <= set(known):
                raise UserError(f"{getattr(self, name)} are not the {name} there are: use some of {', '.join(known)}")
        if "still" not in self.cameras and "noise" not in self.world.grounds:
            raise UserError("no camera can move over these grounds: allow the ground 'noise' or the camera 'still'")
        for name in ("moving", "changes", "keep", "defective"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} {getattr(self, name)} is not possible: use 0 to 1")
        if len(self.world.colours) < self.world.most:
            raise UserError(
                f"{self.world.most} things of {len(self.world.colours)} colours cannot be told apart in a clip: allow more colours"
            )


ANY = ClipRules()


def clip(seed: int, index: int, rules: ClipRules = ANY) -> Clip:
    """Clip `index` of the world `seed`: the same alone or among others, today or later. No two things in it share a colour."""
    rng = random.Random(mix(seed, index, 0xC11B))
    defect = _pick(rules.defects, rng) if rng.random() < rules.defective else None
    starts: tuple[int, ...] = (0,)
    if defect == "cut" and rules.frames > 1:
        starts = (0, rules.frames // 4 + int(rng.random() * (rules.frames // 2)) or 1)
    lengths = [end - start for start, end in zip(starts, (*starts[1:], rules.frames), strict=True)]
    shots = [_shot(_told_apart(seed, index, n, rules.world), rules, length, rng) for n, length in enumerate(lengths)]
    if defect == "static":
        shots = [Shot(scene=s.scene, motions=tuple(Motion(material=m.material) for m in s.motions)) for s in shots]
    banner = _pick(WORDS, rng) if defect == "banner" else ""
    possible = {"cut": len(starts) > 1, "mistold": bool(shots[0].scene.named)}
    return Clip(
        seed=seed,
        index=index,
        frames=rules.frames,
        fps=rules.fps,
        shots=tuple(shots),
        starts=starts,
        defect=defect if possible.get(str(defect), True) else None,
        banner=banner,
    )


def _pick(options: Sequence[Any], rng: random.Random) -> Any:
    return options[int(rng.random() * len(options))]


def _told_apart(seed: int, index: int, n: int, rules: Rules) -> Scene:
    """The scene of shot n; a thing whose colour is taken gets another."""
    made = scene(seed if not n else mix(seed, n), index, replace(rules, overlap=0.0))
    things: list[Thing] = []
    for thing in made.things:
        free = [c for c in _colours(thing.shape, rules) if c not in {t.colour for t in things}]
        things.append(thing if thing.colour in free or thing.subject is not None or not free else replace(thing, colour=free[0]))
    return replace(made, things=tuple(things))


def _colours(shape: str, rules: Rules) -> list[str]:
    return [colour for colour in rules.colours if (colour, shape) not in rules.held_out]


def _shot(made: Scene, rules: ClipRules, frames: int, rng: random.Random) -> Shot:
    seconds, law = frames / rules.fps, _pick(rules.laws, rng)
    moving = [kind for kind in rules.cameras if kind != "still"] if "noise" in rules.world.grounds else []
    films = moving and (rng.random() < rules.moving or "still" not in rules.cameras)
    made = replace(made, ground=replace(made.ground, kind="noise")) if films else made
    motions = [_SETS_OUT[law](thing, seconds, rng) for thing in made.things]
    materials = [_pick(tuple(MATERIALS.values()), rng) if rules.hidden else _material(thing) for thing in made.things]
    motions = [replace(motion, material=material) for motion, material in zip(motions, materials, strict=True)]
    changes = _changes(made, rules, frames, rng) if frames >= 4 and rng.random() < rules.changes else ()
    shot = Shot(scene=made, motions=tuple(motions), law=law, keep=rules.keep, changes=changes)
    return _filmed(shot, _pick(moving, rng), frames, rules.fps, rng) if films else shot


SHAKE = 0.02
FARTHER = 0.72  # zooms and travels of a whole clip; the last of several keeps everything in sight
NEARER = (1.35, 1.25, 1.15)
TRAVELS = (0.30, 0.22, 0.14, 0.06)
_AIMS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


def _filmed(shot: Shot, kind: str, frames: int, fps: float, rng: random.Random) -> Shot:
    """The shot by a camera that goes this way, as far as every thing's middle stays in sight and none looks larger than a large one."""
    if kind in ("in", "out"):  # what grows by itself would look as if the camera did it
        shot = replace(shot, motions=tuple(replace(motion, growth=1.0) for motion in shot.motions))
    seconds, phase = frames / fps, 2 * math.pi * rng.random()
    room = SIZES["large"][1] / max(thing.radius for thing in shot.scene.things)
    if kind == "in" and room < NEARER[-1]:
        return shot
    if kind == "shake":
        return replace(shot, camera=Camera(kind=kind, shake=SHAKE, phase=phase))
    if kind == "out":
        return replace(shot, camera=Camera(kind=kind, zoom=FARTHER ** (1 / seconds)))
    if kind == "in":
        cameras = [Camera(kind=kind, zoom=min(room, zoom) ** (1 / seconds)) for zoom in NEARER]
    else:
        x, y = _AIMS[kind]
        cameras = [Camera(kind=kind, vx=x * way / seconds, vy=y * way / seconds) for way in TRAVELS]
    shots = [replace(shot, camera=camera) for camera in cameras]
    return next((s for s in shots if _in_sight(s, frames, fps)), shots[-1])


def _in_sight(shot: Shot, frames: int, fps: float) -> bool:
    course = shot.course(frames / fps)
    return all(0 <= p <= 1 for i in range(frames) for thing in shot.seen(i, fps, course).things for p in (thing.x, thing.y))


def _drifting(thing: Thing, seconds: float, rng: random.Random) -> Motion:
    """Straight on one of eight ways, or on the spot; now and then turning, growing or shrinking."""
    spin, growth = _spin(thing, 0.35, rng), 1.0
    if rng.random() < 0.25:
        larger, smaller = min(1.5, SIZES["large"][1] / thing.radius), max(0.65, LEAST_RADIUS / thing.radius)
        growth = (larger if larger > 1.2 and rng.random() < 0.5 else smaller if smaller < 0.84 else 1.0) ** (1 / seconds)
    turn, fast = int(rng.random() * 8), int(rng.random() * 3)
    if rng.random() < 0.75:
        for speed in reversed(tuple(SPEEDS.values())[: fast + 1]):
            for way in range(8):
                angle = math.radians(45 * (turn + way))
                vx, vy = speed * math.cos(angle), speed * math.sin(angle)
                if all(0.6 * thing.radius < p < 1 - 0.6 * thing.radius for p in (thing.x + vx * seconds, thing.y + vy * seconds)):
                    return Motion(vx=vx, vy=vy, spin=spin, growth=growth)
    return Motion(spin=spin, growth=growth)


def _in_a_box(thing: Thing, seconds: float, rng: random.Random) -> Motion:
    speed, angle = 0.3 + 0.4 * rng.random(), 2 * math.pi * rng.random()
    return Motion(vx=speed * math.cos(angle), vy=speed * math.sin(angle), spin=_spin(thing, 0.25, rng))


def _falling(thing: Thing, seconds: float, rng: random.Random) -> Motion:
    return Motion(vx=0.7 * rng.random() - 0.35, spin=_spin(thing, 0.25, rng))


_SETS_OUT = {"drift": _drifting, "box": _in_a_box, "fall": _falling}


def _spin(thing: Thing, chance: float, rng: random.Random) -> float:
    """Slow enough for every frame to tell the way; nothing that looks the same from all sides turns."""
    way, turns = 1 if rng.random() < 0.5 else -1, TURNS.get(thing.shape, 1)
    return way * (70 + 50 * rng.random()) if turns and rng.random() < chance else 0.0


def _changes(made: Scene, rules: ClipRules, frames: int, rng: random.Random) -> tuple[Change, ...]:
    """One thing gets another shape or a colour that no other has, not too near the beginning or the end."""
    k, frame = int(rng.random() * len(made.things)), frames // 4 + int(rng.random() * (frames // 2))
    thing, taken = made.things[k], {t.colour for t in made.things}
    shapes = [s for s in rules.world.shapes if s != thing.shape and (thing.colour, s) not in rules.world.held_out]
    colours = [c for c in _colours(thing.shape, rules.world) if c not in taken]
    options = [("shape", s) for s in shapes] if rng.random() < 0.5 else [("colour", c) for c in colours]
    if not options or thing.subject is not None:
        return ()
    field, word = _pick(options, rng)
    return (Change(frame=max(1, frame), thing=k, field=field, word=word),)
