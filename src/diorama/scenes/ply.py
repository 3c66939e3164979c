"""Gaussians in .ply files as viewers read them: binary, little-endian, one float32 a number (the layout of Kerbl et al. 2023)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

from diorama.errors import UserError
from diorama.files import atomic_file
from diorama.scenes.gaussians import Gaussians

WORDS = {
    "float": "<f4",
    "float32": "<f4",
    "double": "<f8",
    "float64": "<f8",
    "uchar": "u1",
    "uint8": "u1",
    "int": "<i4",
    "int32": "<i4",
}
LONGEST = 1 << 16  # bytes of a header
NEEDED = (
    "x",
    "y",
    "z",
    "f_dc_0",
    "f_dc_1",
    "f_dc_2",
    "opacity",
    *(f"scale_{i}" for i in range(3)),
    *(f"rot_{i}" for i in range(4)),
)


def write_ply(path: str | Path, gaussians: Gaussians) -> None:
    """All of it or nothing. Harmonics beyond the first go channel by channel; normals are zeros, which viewers expect and ignore."""
    n, k, _ = gaussians.harmonics.shape
    first, rest = gaussians.harmonics[:, 0], gaussians.harmonics[:, 1:].mT.flatten(1)
    columns = [gaussians.means, torch.zeros(n, 3), first, rest, gaussians.opacities[:, None], gaussians.scales, gaussians.turns]
    names = [*"xyz", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3)), *(f"f_rest_{i}" for i in range(3 * (k - 1)))]
    names += ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    table = torch.cat([column.detach().cpu().float() for column in columns], 1).numpy().astype("<f4")
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {n}",
        *(f"property float {name}" for name in names),
        "end_header",
        "",
    ]
    with atomic_file(path) as new:
        new.write_bytes("\n".join(header).encode() + table.tobytes())


def read_ply(path: str | Path) -> Gaussians:
    """Of any degree, 0 to 3, whatever other columns there are. Raises UserError where the file is no such cloud, or damaged."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({(error.strerror or str(error)).lower()}): check the path") from None
    found = re.match(rb"ply\r?\n.*?end_header\r?\n", content[:LONGEST], re.DOTALL)
    if not found or b"format binary_little_endian" not in found[0]:
        raise UserError(f"{path} is no binary little-endian .ply: export it as one, as splat viewers do")
    head = re.split(r"^element ", found[0].decode("ascii", "replace"), flags=re.MULTILINE)[1]
    fields = re.findall(r"^property (\S+) (\S+)\s*$", head, re.MULTILINE)
    names = [name for _, name in fields]
    if missing := [name for name in NEEDED if name not in names]:
        raise UserError(f"{path} holds no Gaussians (it has no {missing[0]}): points alone cannot be looked at")
    kind = np.dtype([(name, WORDS[word]) for word, name in fields])
    n = int(head.split()[1])
    if len(content) < found.end() + n * kind.itemsize:
        raise UserError(f"{path} ends too early: fetch or make it again")
    table = np.frombuffer(content, kind, n, found.end())

    def column(*wanted: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([table[name] for name in wanted], 1).astype(np.float32))

    rest = sorted((name for name in names if name.startswith("f_rest_")), key=lambda name: int(name[7:]))
    if len(rest) not in (0, 9, 24, 45):
        raise UserError(f"{path} has {len(rest)} f_rest columns: 0, 9, 24 or 45 are degrees 0 to 3")
    harmonics = column("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    if rest:
        harmonics = torch.cat([harmonics, column(*rest).unflatten(1, (3, -1)).mT], 1)
    turns = column(*(f"rot_{i}" for i in range(4)))
    return Gaussians(
        column(*"xyz"), column("scale_0", "scale_1", "scale_2"), turns, column("opacity")[:, 0], harmonics.contiguous()
    )
