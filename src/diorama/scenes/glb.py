"""Coloured meshes as .glb, the one file that every viewer opens (glTF 2.0, binary)."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diorama.files import atomic_file
from diorama.scenes.surface import Mesh

FLOAT, UINT, ARRAY, ELEMENTS = 5126, 5125, 34962, 34963  # the numbers glTF gives its kinds
JSON, BINARY = 0x4E4F534A, 0x004E4942


def write_glb(path: str | Path, mesh: Mesh, colours: Tensor) -> None:
    """The mesh, z up and its front towards -y, with colours (v, 3) in 0 .. 1 as screens have them; all of it or nothing."""
    stored = {
        "POSITION": upright(mesh.vertices),
        "NORMAL": upright(mesh.normals),
        "COLOR_0": linear(colours),
    }
    arrays = [part.detach().cpu().numpy().astype("<f4") for part in stored.values()]
    arrays.append(mesh.faces.cpu().numpy().astype("<u4").reshape(-1, 1))
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []
    start = 0
    for array in arrays:
        whole = array.dtype == "<u4"
        views.append({"buffer": 0, "byteOffset": start, "byteLength": array.nbytes, "target": ELEMENTS if whole else ARRAY})
        accessor = {"bufferView": len(accessors), "componentType": UINT if whole else FLOAT, "count": len(array)}
        accessors.append(accessor | {"type": "SCALAR" if whole else "VEC3", **_bounds(array)})
        start += array.nbytes
    primitive = {"attributes": {name: i for i, name in enumerate(stored)}, "indices": len(stored), "material": 0}
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "diorama"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [{"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}}],
        "buffers": [{"byteLength": start}],
        "bufferViews": views,
        "accessors": accessors,
    }
    said = json.dumps(document, separators=(",", ":")).encode()
    chunks = _chunk(JSON, said + b" " * (-len(said) % 4)) + _chunk(BINARY, b"".join(array.tobytes() for array in arrays))
    with atomic_file(path) as new:
        new.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)


def _chunk(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", len(content), kind) + content


def _bounds(array: np.ndarray) -> dict[str, list[float]]:
    return {"min": array.min(0).tolist(), "max": array.max(0).tolist()}


def upright(vectors: Tensor) -> Tensor:
    """(n, 3) with z up as glTF has it: y up, the front towards +z."""
    x, y, z = vectors.unbind(1)
    return torch.stack([x, z, -y], 1)


def linear(colours: Tensor) -> Tensor:
    """Light instead of what screens are sent (IEC 61966-2-1)."""
    return torch.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
