import numpy as np
import pytest
import torch
from test_gaussians import some

from diorama.errors import UserError
from diorama.scenes.ply import read_ply, write_ply


@pytest.mark.parametrize("degree", range(4))
def test_read_as_written(tmp_path, degree):
    gaussians = some(7, degree, dtype=torch.float32)
    write_ply(tmp_path / "scene.ply", gaussians)
    found = read_ply(tmp_path / "scene.ply")
    assert found.degree == degree
    assert all(torch.equal(part, wanted) for part, wanted in zip(found, gaussians, strict=True))


def test_the_columns_that_viewers_know(tmp_path):
    """62 of them at degree 3, and of the harmonics all red ones before the green ones."""
    gaussians = some(2, dtype=torch.float32)
    write_ply(tmp_path / "scene.ply", gaussians)
    head, body = (tmp_path / "scene.ply").read_bytes().split(b"end_header\n")
    names = [line.split()[2].decode() for line in head.splitlines() if line.startswith(b"property float ")]
    assert names[:9] == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    assert names[9:54] == [f"f_rest_{i}" for i in range(45)]
    assert names[54:] == ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    table = dict(zip(names, np.frombuffer(body, "<f4").reshape(2, 62).T, strict=True))
    np.testing.assert_array_equal(table["f_rest_0"], gaussians.harmonics[:, 1, 0])
    np.testing.assert_array_equal(table["f_rest_16"], gaussians.harmonics[:, 2, 1])
    assert not table["nx"].any()


def test_other_columns_and_types_do_not_matter(tmp_path):
    """As other tools write it: doubles, colours of points, no normals, another order."""
    wanted = some(3, 0, dtype=torch.float32)
    values = {"red": np.arange(3, dtype="u1"), "opacity": wanted.opacities.double().numpy()}
    values |= {f"rot_{i}": wanted.turns[:, i].numpy() for i in range(4)} | {
        f"scale_{i}": wanted.scales[:, i].numpy() for i in range(3)
    }
    values |= {f"f_dc_{i}": wanted.harmonics[:, 0, i].numpy() for i in range(3)}
    values |= {name: wanted.means[:, i].numpy() for i, name in enumerate("xyz")}
    words = {"u1": "uchar", "f4": "float", "f8": "double"}
    lines = [f"property {words[value.dtype.str[1:]]} {name}" for name, value in values.items()]
    table = np.rec.fromarrays(list(values.values()), names=list(values))
    head = "\n".join(
        ["ply", "format binary_little_endian 1.0", "comment by another", "element vertex 3", *lines, "end_header", ""]
    )
    (tmp_path / "scene.ply").write_bytes(head.encode() + table.tobytes())
    assert all(torch.equal(part, own) for part, own in zip(read_ply(tmp_path / "scene.ply"), wanted, strict=True))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda content: content[:-4], "ends too early"),
        (lambda content: content.replace(b"binary_little", b"binary_bigXX"), "no binary little-endian"),
        (lambda content: content.replace(b"opacity", b"opaqueX"), "no opacity"),
        (lambda content: b"solid", "no binary little-endian"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, spoil, words):
    path = tmp_path / "scene.ply"
    write_ply(path, some(2, dtype=torch.float32))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match=words):
        read_ply(path)
