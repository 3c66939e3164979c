"""Where a volume has a given value: a closed mesh, by marching through tetrahedra (Doi & Koide 1991)."""

from __future__ import annotations

from itertools import combinations, permutations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Mesh(NamedTuple):
    """Triangles, counter-clockwise as seen from outside."""

    vertices: Tensor  # (v, 3)
    faces: Tensor  # (f, 3) int64

    @property
    def normals(self) -> Tensor:
        """(v, 3): unit vectors, the mean of the faces around each vertex by their areas."""
        around = torch.zeros_like(self.vertices).index_add(0, self.faces.flatten(), self.across.repeat_interleave(3, 0))
        return F.normalize(around, dim=1)

    @property
    def area(self) -> Tensor:
        return self.across.norm(dim=1).sum() / 2

    @property
    def across(self) -> Tensor:
        """(f, 3): out of each face, as long as twice its area."""
        a, b, c = self.vertices[self.faces].unbind(1)
        return torch.linalg.cross(b - a, c - a)


# Each cell falls into six tetrahedra, one for each order in which a walk from its first corner to its last takes the three axes. All
# share one diagonal, the same in every cell, so that neighbours meet in whole faces: the mesh is closed, and no case is ambiguous.
WALKS = torch.tensor([[[int(axis in walk[:n]) for axis in range(3)] for n in range(4)] for walk in permutations(range(3))])
CUTS = {  # by how many corners are inside, those first: the edges (from, to) whose crossings are the corners of triangles
    1: [((0, 1), (0, 2), (0, 3))],
    2: [((0, 2), (0, 3), (1, 3)), ((0, 2), (1, 3), (1, 2))],
    3: [((0, 3), (1, 3), (2, 3))],
}


def marching(values: Tensor, level: float) -> Mesh:
    """The closed surface around all of a volume (z, y, x) that is above the level; vertices (x, y, z) in voxels from the first one."""
    values = values.detach().cpu().double()
    padded = F.pad(values, (1,) * 6, value=2 * level - float(values.max()))  # what is outside lies below
    shape, flat = torch.tensor(padded.shape), padded.flatten()
    first = torch.cartesian_prod(*(torch.arange(n - 1) for n in padded.shape))  # (cells, 3)
    corners = (first[:, None, None] + WALKS).flatten(0, 1)  # (t, 4, 3): of all tetrahedra
    corners = (corners * torch.tensor([shape[1] * shape[2], shape[2], 1])).sum(-1)  # by number
    inside = flat[corners] > level
    corners = corners.gather(1, inside.byte().argsort(dim=1, descending=True, stable=True))
    ends, outwards = [], []
    for n, cuts in CUTS.items():
        cut = corners[inside.sum(1) == n]
        places = _places(cut, shape)
        for triangle in cuts:
            ends.append(cut[:, torch.tensor(triangle)])  # (t, 3, 2)
            outwards.append(places[:, n:].mean(1) - places[:, :n].mean(1))
    pairs, faces = torch.cat(ends).flatten(0, 1).sort(1).values.unique(dim=0, return_inverse=True)
    (low, high), (a, b) = flat[pairs].T, _places(pairs, shape).unbind(1)
    mesh = Mesh(torch.lerp(a, b, ((level - low) / (high - low))[:, None]), faces.unflatten(0, (-1, 3)))
    inwards = (mesh.across * torch.cat(outwards)).sum(1, keepdim=True) < 0
    return Mesh((mesh.vertices - 1).float(), torch.where(inwards, mesh.faces.flip(1), mesh.faces))


def _places(numbers: Tensor, shape: Tensor) -> Tensor:
    """(*, 3): x, y and z of voxels by their number."""
    return torch.stack([numbers % shape[2], numbers // shape[2] % shape[1], numbers // (shape[1] * shape[2])], -1).double()


def edges(mesh: Mesh) -> Tensor:
    """(e,) int64: how many faces each edge has. Of a closed surface 2, all of them."""
    pairs = torch.cat([mesh.faces[:, list(pair)] for pair in combinations(range(3), 2)]).sort(1).values
    return pairs.unique(dim=0, return_counts=True)[1]
