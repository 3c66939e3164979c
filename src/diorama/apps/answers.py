"""What can be asked of the miniature world by `diorama world`, and the files, lines and pictures that answer it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor

    from diorama.scenes.cameras import Camera
    from diorama.worlds.clips import Clip
    from diorama.worlds.film import Film
    from diorama.worlds.parts import Parts
    from diorama.worlds.points import Scan
    from diorama.worlds.render import Views
    from diorama.worlds.scene import Scene
    from diorama.worlds.views import Shots

ACROSS = 4  # pictures of one scene on the sheet
TURN = 36  # pictures of an orbit
MILLISECONDS = 80  # each
THINGS = (230, 90, 60), (70, 160, 230), (240, 200, 70), (120, 200, 120)  # colours of masks and points
GROUND = (110, 110, 110)


@dataclass(frozen=True)
class Answer:
    """What is given of one scene; every ask adds to it."""

    line: dict[str, Any]  # of world.jsonl
    files: dict[str, Any] = field(default_factory=dict)  # name: a picture, an array, or what JSON can hold
    shown: dict[str, Image.Image] = field(default_factory=dict)  # on its card of sheet.png


@dataclass(frozen=True)
class Moving:
    """Pictures one after another."""

    frames: Sequence[Image.Image]
    milliseconds: int  # each

    def save(self, path: Path) -> None:
        first, *rest = self.frames
        first.save(path, save_all=True, append_images=rest, duration=self.milliseconds, loop=0, lossless=True)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How scenes are to be shown; the words are those of the command."""

    seed: int
    size: int
    form: str | None
    views: int
    elevation: float


@dataclass(frozen=True)
class Made:
    """A few scenes, drawn when an ask first needs it."""

    scenes: Sequence[Scene]
    wish: Wish

    @cached_property
    def flat(self) -> Views:
        from diorama.worlds.render import render

        return render(self.scenes, self.wish.size)

    @cached_property
    def camera(self) -> Camera:
        from diorama.scenes.cameras import orbit

        return orbit(self.wish.views, self.wish.elevation, size=self.wish.size)

    @cached_property
    def shots(self) -> Shots:
        from diorama.worlds.views import shoot

        return shoot(self.scenes, self.camera)

    @cached_property
    def ring(self) -> Camera:
        from diorama.scenes.cameras import orbit

        return orbit(TURN, self.wish.elevation, size=self.wish.size)

    @cached_property
    def parts(self) -> Parts:
        from diorama.worlds.parts import parts

        return parts(self.scenes, self.flat)

    def clip(self, i: int) -> Clip:
        from diorama.worlds.clips import clip

        return clip(self.wish.seed, self.scenes[i].index)

    @cached_property
    def films(self) -> list[Film]:
        from diorama.worlds.film import film

        return [film(self.clip(i), self.wish.size) for i in range(len(self.scenes))]

    @cached_property
    def scan(self) -> Scan:
        from diorama.worlds.points import scan

        return scan(self.scenes)


# --- what can be asked ----------------------------------------------------------------------------


def _picture(made: Made, i: int, answer: Answer) -> None:
    """NUMBER.png, its ground transparent where it is clear."""
    answer.line["file_name"] = f"{made.scenes[i].index}.png"
    answer.files[answer.line["file_name"]] = _pil(made.flat.image[i], transparent=True)
    answer.shown["picture"] = _pil(made.flat.image[i])


def _mask(made: Made, i: int, answer: Answer) -> None:
    """NUMBER-mask.png: 0 where the ground is, k + 1 where thing k is."""
    _labelled(made, i, answer, mask=made.flat.masks[i])


def _boxes(made: Made, i: int, answer: Answer) -> None:
    """A line's `boxes`: left, top, right, bottom in pixels."""
    from PIL import ImageDraw

    boxes = made.flat.boxes[i].tolist()
    answer.line["boxes"] = [
        {"shape": t.shape, "colour": t.colour, "box": box} for t, box in zip(made.scenes[i].things, boxes, strict=False)
    ]
    scale = _scale(made.wish.size)
    picture = _large(_pil(made.flat.image[i]))
    for left, top, right, bottom in boxes[: len(made.scenes[i].things)]:
        ImageDraw.Draw(picture).rectangle((scale * left, scale * top, scale * right - 1, scale * bottom - 1), outline="black")
    answer.shown["picture"] = picture


def _edges(made: Made, i: int, answer: Answer) -> None:
    """NUMBER-edges.png: white where one thing ends and another, or the ground, begins."""
    from PIL import Image

    from diorama.worlds.parts import edges

    shown = Image.fromarray(edges(made.flat.masks[i]).numpy()).convert("L")
    answer.files[f"{made.scenes[i].index}-edges.png"] = answer.shown["edges"] = shown


def _parts(made: Made, i: int, answer: Answer) -> None:
    """NUMBER-part.png, k + 1 where the texture of thing k is, and NUMBER-group.png, the same for all that touches it."""
    _labelled(made, i, answer, part=made.parts.part[i], group=made.parts.group[i])


def _views(made: Made, i: int, answer: Answer) -> None:
    """NUMBER-viewV.png, from cameras around the scene."""
    answer.line["views"] = [f"{made.scenes[i].index}-view{v}.png" for v in range(made.wish.views)]
    for v, name in enumerate(answer.line["views"]):
        answer.files[name] = _pil(made.shots.image[i, v], transparent=True)
        answer.shown[f"view {v}"] = _pil(made.shots.image[i, v])


def _depth(made: Made, i: int, answer: Answer) -> None:
    """NUMBER-viewV-depth.png: 16 bits, millimetres along the camera's axis, 0 where nothing is."""
    import numpy as np
    from PIL import Image

    for v, depth in enumerate(made.shots.depth[i].numpy()):
        metres = np.where(np.isfinite(depth), depth, 0)
        answer.files[f"{made.scenes[i].index}-view{v}-depth.png"] = Image.fromarray(np.round(1000 * metres).astype(np.uint16))
        answer.shown[f"depth {v}"] = _near(depth)


def _normals(made: Made, i: int, answer: Answer) -> None:
    """NUMBER-viewV-normals.png: x to the right, y upwards and z towards the camera, -1 .. 1 as 0 .. 255."""
    import torch

    for v, normals in enumerate(made.shots.normals[i]):
        shown = torch.cat([normals * torch.tensor([1.0, -1.0, -1.0])[:, None, None], torch.ones_like(normals[:1])])
        answer.files[f"{made.scenes[i].index}-view{v}-normals.png"] = answer.shown[f"normals {v}"] = _pil(shown)


def _cameras(made: Made, i: int, answer: Answer) -> None:
    """NUMBER-transforms.json: the cameras of the views, as a NeRF reads them."""
    from diorama.scenes.cameras import transforms

    names = [f"{made.scenes[i].index}-view{v}.png" for v in range(made.wish.views)]
    answer.files[f"{made.scenes[i].index}-transforms.json"] = transforms(made.camera, names)


def _points(made: Made, i: int, answer: Answer) -> None:
    """NUMBER-points.npy: a structured array of x, y, z in metres, reflectivity and thing (-1 is the ground)."""
    answer.files[f"{made.scenes[i].index}-points.npy"] = made.scan.array(i)
    answer.shown["points"] = _plan(made.scan.array(i))


def _orbit(made: Made, i: int, answer: Answer) -> None:
    """NUMBER-orbit.webp, an animation once around the scene, and NUMBER-orbit-transforms.json: the camera of each of its frames."""
    from diorama.pictures import to_pil
    from diorama.scenes.cameras import transforms
    from diorama.worlds.views import shoot

    name = f"{made.scenes[i].index}-orbit"
    frames = to_pil(shoot([made.scenes[i]], made.ring).image[0])
    answer.files[f"{name}.webp"] = Moving(frames, MILLISECONDS)
    answer.files[f"{name}-transforms.json"] = transforms(made.ring, [f"{name}.webp"] * TURN)
    answer.shown.update({f"orbit {k}": frames[k * TURN // ACROSS] for k in range(ACROSS)})


def _clip(made: Made, i: int, answer: Answer) -> None:
    """NUMBER-clip.webp, an animation, and a line's `clip`: what is said of it."""
    from diorama.pictures import to_pil
    from diorama.worlds.motions import describe

    clip = made.clip(i)
    frames = to_pil(made.films[i].image)
    answer.line["clip"] = describe(clip)
    answer.files[f"{made.scenes[i].index}-clip.webp"] = Moving(frames, round(1000 * clip.seconds / len(frames)))
    _show(answer, "frame", frames)


def _flow(made: Made, i: int, answer: Answer) -> None:
    """NUMBER-flow.npy: (t - 1, 2, h, w) float32, pixels right and down from each frame of the clip to the next, and
    NUMBER-occluded.npy: (t - 1, h, w) bool, where what a pixel shows is not seen in the next frame."""
    flow, occluded = made.films[i].flow()
    answer.files[f"{made.scenes[i].index}-flow.npy"] = flow.numpy()
    answer.files[f"{made.scenes[i].index}-occluded.npy"] = occluded.numpy()
    _show_flow(answer, "flow", flow)


def _tracks(made: Made, i: int, answer: Answer) -> None:
    """NUMBER-tracks.npy: (t, k, 2) float32, x and y in pixels of the middles of the clip's things; a line's `tracks` names these."""
    answer.files[f"{made.scenes[i].index}-tracks.npy"] = made.films[i].tracks.numpy()
    answer.line["tracks"] = _things(made.clip(i))


def _sound(made: Made, i: int, answer: Answer) -> None:
    """NUMBER-clip.wav: what is heard in the clip, 16 kHz."""
    from diorama.worlds.sound import sound

    answer.files[f"{made.scenes[i].index}-clip.wav"] = sound(made.clip(i))


def _tour(made: Made, i: int, answer: Answer) -> None:
    """NUMBER-tour.webp, a clip in space, a line's `tour` and `toured`, what is said of it and its things, and NUMBER-tour-transforms.json,
    the camera of each frame; NUMBER-tour-flow.npy and -occluded.npy as those of a clip, -depth.npy: (t, h, w) float32 metres, inf where
    nothing is, -mask.npy: (t, h, w) uint8 as those of a picture, -tracks.npy: (t, k, 2) pixels and -places.npy: (t, k, 3) metres, float32.
    """
    from diorama.pictures import to_pil
    from diorama.scenes.cameras import orbit, transforms
    from diorama.worlds.clips import clip
    from diorama.worlds.parts import labels
    from diorama.worlds.stage import STAGED, staged, tell

    name, wish = f"{made.scenes[i].index}-tour", made.wish
    moving, t = clip(wish.seed, made.scenes[i].index, STAGED), STAGED.frames
    seen = staged(moving, orbit(4 * t, wish.elevation, size=wish.size).rows(slice(t)))
    (flow, occluded), frames = seen.flow(), to_pil(seen.image)
    answer.line["tour"] = tell(moving)
    answer.line["toured"] = _things(moving)
    answer.files[f"{name}.webp"] = Moving(frames, round(1000 / moving.fps))
    answer.files[f"{name}-transforms.json"] = transforms(seen.camera, [f"{name}.webp"] * t)
    mask = labels(seen.masks).byte()
    truth = {"flow": flow, "occluded": occluded, "depth": seen.depth, "mask": mask, "tracks": seen.tracks, "places": seen.places}
    for ending, values in truth.items():
        answer.files[f"{name}-{ending}.npy"] = values.numpy()
    _show(answer, "tour", frames)
    _show(answer, "tour depth", [_near(depth) for depth in seen.depth.numpy()])
    _show_flow(answer, "tour flow", flow)


def _figure(made: Made, i: int, answer: Answer) -> None:
    """NUMBER-figure.png: a person, its parts, light and colours, its garments off, flat and on; and a line's `figure`."""
    from diorama.pictures import sheet
    from diorama.worlds.actions import ACTIONS
    from diorama.worlds.figures import figure
    from diorama.worlds.introductions import introduce
    from diorama.worlds.portraits import figure_card

    number = made.scenes[i].index
    someone, action = figure(made.wish.seed, number), sorted(ACTIONS)[number % len(ACTIONS)]
    answer.line["figure"] = introduce(someone, action)
    pictures = figure_card(someone, made.wish.size, action)
    answer.files[f"{number}-figure.png"] = sheet(pictures, columns=len(pictures))
    answer.shown.update({f"figure {k}": picture for k, picture in enumerate(pictures)})


def _room(made: Made, i: int, answer: Answer) -> None:
    """NUMBER-room.png: a room from above, with the shortest way through it."""
    from diorama.worlds.portraits import room_cards
    from diorama.worlds.rooms import room

    number = made.scenes[i].index
    answer.shown["room"] = answer.files[f"{number}-room.png"] = room_cards([room(made.wish.seed, number)], made.wish.size)[0]


def _caption(made: Made, i: int, answer: Answer) -> None:
    """A line's `text`."""
    from diorama.worlds.captions import caption

    answer.line["text"] = caption(made.scenes[i], form=made.wish.form)


def _scene(made: Made, i: int, answer: Answer) -> None:
    """A line's `scene`: all that it is made of."""
    from diorama.worlds.scene import as_plain

    answer.line["scene"] = as_plain(made.scenes[i])


ASKS: dict[str, Callable[[Made, int, Answer], None]] = {
    "picture": _picture,
    "mask": _mask,
    "boxes": _boxes,
    "edges": _edges,
    "parts": _parts,
    "views": _views,
    "depth": _depth,
    "normals": _normals,
    "cameras": _cameras,
    "points": _points,
    "orbit": _orbit,
    "clip": _clip,
    "flow": _flow,
    "tracks": _tracks,
    "sound": _sound,
    "tour": _tour,
    "figure": _figure,
    "room": _room,
    "caption": _caption,
    "scene": _scene,
}


# --- pictures and files ---------------------------------------------------------------------------


def _pil(image: Tensor, transparent: bool = False) -> Image.Image:
    from diorama.pictures import to_pil

    return to_pil(image[None], transparent)[0]


def _labelled(made: Made, i: int, answer: Answer, **masks: Tensor) -> None:
    """Palette pictures of masks (k, h, w), each under its own ending."""
    import numpy as np
    from PIL import Image

    from diorama.worlds.parts import labels

    for ending, mask in masks.items():
        picture = Image.fromarray(labels(mask).numpy().astype(np.uint8), "P")
        picture.putpalette([0, 0, 0, *chain(*THINGS)])
        answer.files[f"{made.scenes[i].index}-{ending}.png"] = answer.shown[ending] = picture


def _things(clip: Clip) -> list[dict[str, str]]:
    """What a clip's rows of things are, in its first frame; without a defect there is one shot."""
    return [{"shape": thing.shape, "colour": thing.colour} for thing in clip.shots[0].scene.things]


def _show(answer: Answer, name: str, pictures: Sequence[Image.Image]) -> None:
    """What the card of a clip shows of its frames, from the first to the last."""
    answer.shown.update({f"{name} {k}": pictures[k * (len(pictures) - 1) // (ACROSS - 1)] for k in range(ACROSS)})


def _show_flow(answer: Answer, name: str, flow: Tensor) -> None:
    pictures = _flow_colours(flow)
    _show(answer, name, [*pictures, pictures[-1]])  # nothing follows the last frame


def _near(depth: np.ndarray) -> Image.Image:
    """Depth (h, w) as a grey that is light where it is near, black where nothing is."""
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.round(255 * ((4.0 - depth) / 3.0).clip(0, 1)).astype(np.uint8))


def _flow_colours(flow: Tensor) -> list[Image.Image]:
    """Flow (t, 2, h, w) as colours: the hue is the direction, red to the right; the brightest is the clip's fastest pixel."""
    import torch
    from PIL import Image

    speed, turn = flow.norm(dim=1), torch.atan2(flow[:, 1], flow[:, 0]) / (2 * torch.pi) % 1
    hsv = torch.stack([turn, torch.ones_like(turn), speed / speed.max().clamp(min=1e-6)], -1)
    return [Image.fromarray(picture.numpy(), "HSV").convert("RGB") for picture in (255 * hsv).round().byte()]


def _plan(points: np.ndarray) -> Image.Image:
    """A scan from above, 2 m along a side with the scene in the middle; the scanner is off the lower edge."""
    import numpy as np
    from PIL import Image

    side = 96
    plan = np.zeros((side, side, 3), np.uint8)
    column, row = ((np.stack([points["x"], -points["y"]]) + 1) / 2 * side).astype(int)
    inside = (column >= 0) & (column < side) & (row >= 0) & (row < side)
    plan[row[inside], column[inside]] = np.array([*THINGS, GROUND], np.uint8)[points["thing"][inside]]  # -1 is the last
    return Image.fromarray(plan)


def _scale(size: int) -> int:
    return max(1, 192 // size)


def _large(picture: Image.Image) -> Image.Image:
    """Large enough to look at."""
    scale = _scale(picture.width)
    return picture.convert("RGB").resize((scale * picture.width, scale * picture.height), 0)


def card(answer: Answer) -> Image.Image:
    """What is shown of one scene, over its caption."""
    from diorama.pictures import labelled, sheet

    rows: list[list[Image.Image]] = [[]]
    for name, picture in answer.shown.items():
        if len(rows[-1]) == ACROSS or (rows[-1] and name.endswith(" 0")):  # what comes in a series begins a row
            rows.append([])
        rows[-1].append(_large(picture))
    return labelled(sheet([sheet(row, columns=len(row)) for row in rows], columns=1), answer.line.get("text", ""))
