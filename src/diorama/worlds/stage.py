"""Clips in space: what moves on the floor plan, filmed by a camera that may move too, with its motion in pixels and in metres.

The floor plan of every frame is the clip's flat world as it is without its window. A thing slides upright over the floor, turns about
its upright axis and grows from its foot; the walls are the edges of the plan, 1 m apart, and cannot be seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diorama.errors import UserError
from diorama.scenes import cameras
from diorama.scenes.cameras import pixel_centres, project, unproject
from diorama.worlds.clips import FEW, LAWS, Clip, ClipRules
from diorama.worlds.motions import describe, story
from diorama.worlds.space import NOTHING, Solids, meet, solids
from diorama.worlds.views import AT_ONCE, shoot

STAGED = ClipRules(laws=("box",), cameras=("still",), world=FEW)  # clips that can be filmed in space
COVERED = 0.01  # metres behind what is seen at its place from which a point counts as hidden


@dataclass(frozen=True)
class Staged:
    """A clip as filmed in space, by one camera a frame. Things k are counted in its scene."""

    image: Tensor  # (t, 4, h, w) in [-1, 1]: the picture on white and its alpha
    depth: Tensor  # (t, h, w) metres along the camera's z; inf where nothing is
    thing: Tensor  # (t, h, w) int64: the thing in a pixel's middle, GROUND or NOTHING
    masks: Tensor  # (t, k, h, w) in 0 .. 1: the share of each pixel where thing k is seen
    solids: Solids  # t * k, frame by frame
    camera: cameras.Camera  # (t,)

    @property
    def places(self) -> Tensor:
        """(t, k, 3) metres: the middles of the things in the world."""
        return self.solids.centre.unflatten(0, self.masks.shape[:2])

    @property
    def tracks(self) -> Tensor:
        """(t, k, 2) pixels: the same in the pictures; the first pixel's middle is at 0.5."""
        return project(self.camera, self.places)[0]

    def flow(self) -> tuple[Tensor, Tensor]:
        """(t - 1, 2, h, w) pixels right and down, and (t - 1, h, w) bool where it has no counterpart.

        The point of the world in a pixel's middle goes with its thing and is seen by the next camera so much further. Occluded is
        what is out of that picture, or COVERED there by itself or by another thing, as one more ray to it tells; what belongs to a
        thing that has changed its shape; and where there is nothing, whose flow is zero.
        """
        (t, h, w), camera = self.depth.shape, self.camera.rows(slice(1, None))
        nothing = self.thing[:-1] == NOTHING
        now = unproject(self.camera.rows(slice(t - 1)), self.depth[:-1].masked_fill(nothing, 1.0))
        points, lost = self._carried(now.flatten(1, 2))
        at, depth = project(camera, points)
        seen = ((at >= 0) & (at < at.new_tensor([w, h]))).all(-1) & (depth > 0)
        n = max(1, AT_ONCE // (h * w))
        for i in range(0, t - 1, n):
            seen[i : i + n] &= ~self._hidden(i + 1, camera.centre[i : i + n], points[i : i + n])
        flow = (at - pixel_centres(h, w)).mT.unflatten(-1, (h, w))
        return flow.masked_fill(nothing[:, None], 0.0), nothing | (lost | ~seen).unflatten(-1, (h, w))

    def _carried(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Where the points (t - 1, p, 3) under all pixels are in the next frame, and (t - 1, p) which lie on a shape that is gone."""
        thing, k, poses = self.thing[:-1].flatten(1), self.masks.shape[1], self.solids.poses
        on = (thing >= 0).nonzero(as_tuple=True)
        row = on[0] * k + thing[on]
        later = row + k
        moved = self.solids.places(row, points[on].T) * poses.radius[later]
        points[on] = self.solids.turn(later, moved, back=True).T + self.solids.centre[later]
        lost = torch.zeros_like(thing, dtype=torch.bool)
        lost[on] = poses.kind[row] != poses.kind[later]
        return points, lost

    def _hidden(self, first: int, eye: Tensor, points: Tensor) -> Tensor:
        """(n, p) bool: which points (n, p, 3) cannot be seen from the eyes (n, 3), in this frame and those that follow."""
        way = points - eye[:, None]
        length = way.norm(dim=-1)
        here = self.solids._replace(scene=self.solids.scene - first)  # the other frames are scenes that are not asked for
        met = meet(here, eye[:, None].expand_as(way), way / length[..., None])
        hidden = torch.zeros_like(length, dtype=torch.bool)
        hidden.view(-1)[met.ray[met.distance < length.flatten()[met.ray] - COVERED]] = True
        return hidden


def staged(clip: Clip, camera: cameras.Camera) -> Staged:
    """The clip in space, as cameras (t,) see it, one a frame, or one (1,) that stands still.

    Its own camera is a window on the plan and stays behind, as its drawing style does. Raises UserError for a clip that falls, is
    defective or has things that pass through each other, and for another number of cameras.
    """
    _check(clip, camera)
    (shot,), t = clip.shots, clip.frames
    course = shot.course(clip.seconds)
    scenes = [shot.world(i, clip.fps, course) for i in range(t)]
    camera = camera.rows([0] * t) if len(camera.K) == 1 else camera
    shots = shoot(scenes, camera.rows((slice(None), None)), apart=False)  # what bounces is apart; else it would jump
    image, depth, thing, masks = (part[:, 0] for part in (shots.image, shots.depth, shots.thing, shots.masks))
    return Staged(image, depth, thing, masks, solids(scenes, apart=False), camera)


def _check(clip: Clip, camera: cameras.Camera) -> None:
    law = LAWS[clip.shots[0].law]
    if clip.defect:
        raise UserError(
            f"a clip with a defect ({clip.defect}) cannot be filmed in space: use one without, as the rules STAGED give it"
        )
    if law.gravity:
        raise UserError("a clip whose things fall would fall along the floor in space: use the law box, as the rules STAGED do")
    if not law.solid and len(clip.shots[0].scene.things) > 1:
        raise UserError("solids cannot drift through each other in space: use one thing, or the law box, as the rules STAGED do")
    if camera.K.shape[:-2] not in ((1,), (clip.frames,)):
        raise UserError(
            f"cameras of shape {tuple(camera.K.shape[:-2])} cannot film this clip in space: use ({clip.frames},), one a frame, or (1,)"
        )


def tell(clip: Clip, seed: int = 0, form: str | None = None) -> str:
    """`motions.describe` without the ways that things go, which are those of the plan, and without its window: true from any side.

    Things turn clockwise as seen from above.
    """
    told = story(clip)
    named = tuple(replace(a, does=frozenset(verb for verb in a.does if not verb.startswith("moves"))) for a in told.named)
    return describe(clip, seed, form, replace(told, named=named, camera="still"))
