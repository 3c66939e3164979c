import json
import struct

import numpy as np
import torch

from diorama.scenes.glb import linear, write_glb
from diorama.scenes.surface import Mesh

TETRAHEDRON = Mesh(
    torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]]), torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
)


def read(path):
    """What the file says, and its arrays by accessor."""
    content = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    n, kind = struct.unpack_from("<I4s", content, 12)
    assert kind == b"JSON" and n % 4 == 0
    document = json.loads(content[20 : 20 + n])
    m, kind = struct.unpack_from("<I4s", content, 20 + n)
    assert kind == b"BIN\0" and m == document["buffers"][0]["byteLength"] and 28 + n + m == len(content)
    arrays = []
    for accessor in document["accessors"]:
        view = document["bufferViews"][accessor["bufferView"]]
        dtype = {5126: "<f4", 5125: "<u4"}[accessor["componentType"]]
        start = 28 + n + view["byteOffset"]
        array = np.frombuffer(content[start : start + view["byteLength"]], dtype).reshape(accessor["count"], -1)
        assert array.min(0).tolist() == accessor["min"] and array.max(0).tolist() == accessor["max"]
        arrays.append(array)
    return document, arrays


def test_a_mesh_comes_back_as_gltf_means_it(tmp_path):
    colours = torch.tensor([[0.0, 0.5, 1.0]]).expand(4, 3)
    write_glb(tmp_path / "solid.glb", TETRAHEDRON, colours)
    document, arrays = read(tmp_path / "solid.glb")
    primitive = document["meshes"][0]["primitives"][0]
    place, normal, colour, faces = (arrays[i] for i in (*primitive["attributes"].values(), primitive["indices"]))
    assert place.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, -2], [0, 3, 0]]  # y up; what faced -y faces +z
    assert faces.reshape(-1, 3).tolist() == TETRAHEDRON.faces.tolist()
    np.testing.assert_allclose(colour[0], [0, 0.2140, 1.0], atol=1e-4)
    a, b, c = place[faces.reshape(-1, 3)].transpose(1, 0, 2)
    volume = (np.cross(a, b) * c).sum() / 6
    assert abs(volume - 1.0) < 1e-6  # still counter-clockwise from outside
    assert (normal * (place - place.mean(0))).sum(1).min() > 0


def test_light_is_half_where_screens_say_three_quarters():
    torch.testing.assert_close(linear(torch.tensor([0.0, 0.04, 0.735358, 1.0])), torch.tensor([0.0, 0.04 / 12.92, 0.5, 1.0]))
