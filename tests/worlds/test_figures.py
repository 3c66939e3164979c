import math

import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample

from diorama.errors import UserError
from diorama.worlds.dressing import HALF, OUTSIDE, Solids, draw, project, solids
from diorama.worlds.figures import NUMBER, PARENTS, Garment, Posed, figure, forward, offsets, rotation, standing
from diorama.worlds.introductions import Introduction, Worn, introduce, meet
from diorama.worlds.portraits import figure_card, film, part_maps
from diorama.worlds.wardrobe import COVERS, FLAT, PARTS, covers, flat, lie

FEW = [figure(4, i) for i in range(6)]


def posed(b: int, seed: int = 0, by: float = 0.5) -> Posed:
    """The first b of FEW, every joint turned at random."""
    lengths = offsets(FEW[:b])
    angles = by * torch.randn(b, 17, 3, generator=torch.Generator().manual_seed(seed))
    return forward(lengths, angles, lengths[:, 0])


SIDES = [0.0, 40.0, 90.0, 180.0, 250.0, 310.0]
SEEN = draw(FEW, posed(6), 64, azimuth=SIDES)


def everywhere(n: int, m: int):
    """u and v (m, n * n) over whole surfaces."""
    return (axis.flatten().expand(m, -1) for axis in torch.meshgrid(*[torch.linspace(0, 1, n)] * 2, indexing="ij"))


def shown():
    """Each pixel that one part fills: figure, row, column, part, and the point (x, y, away) of the surface that its (u, v) tells."""
    i, y, x = (SEEN.masks.amax(1) > 0.9999).nonzero().T
    part, stood = SEEN.parts[i, y, x] - 1, posed(6)
    rows = Solids(*(of[i * len(PARTS) + part] for of in solids(FEW, stood)))
    points = rows.at(SEEN.uv[i, 0, y, x], SEEN.uv[i, 1, y, x])
    return i, y, x, part, project(points[:, None], stood.joints[i, 0], torch.tensor(SIDES)[i], 64)[:, 0]


def test_a_figure_is_a_function_of_seed_and_index():
    assert figure(3, 7) == figure(3, 7)
    assert figure(3, 7) != figure(3, 8)
    assert {figure(0, i).top.kind for i in range(60)} == {"shirt", "t-shirt", "vest"}
    assert {figure(0, i).bottom.texture for i in range(60)} == {"plain", "striped", "dotted", "checked"}


def test_a_standing_figure_is_as_tall_as_it_says_and_stands_on_the_ground():
    stood = standing(FEW)
    torch.testing.assert_close(stood.joints[:, NUMBER["crown"], 2], torch.tensor([f.height for f in FEW]))
    solid = solids(FEW, stood)
    heights = solid.at(*everywhere(41, len(solid.length)))[..., 2].unflatten(0, (6, len(PARTS)))
    torch.testing.assert_close(heights.amin((1, 2)), torch.zeros(6), atol=1e-5, rtol=0)


def test_rotations_are_the_exponential_of_their_cross_product():
    vectors = torch.cat([torch.randn(50, 3), torch.zeros(1, 3), 1e-4 * torch.ones(1, 3)]).double()
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
    torch.testing.assert_close(rotation(vectors), torch.linalg.matrix_exp(cross), atol=1e-7, rtol=0)


def test_forward_kinematics_is_a_product_of_matrices():
    """The slow twin: a 4 x 4 matrix for every joint, multiplied along the chain from the pelvis."""
    lengths = offsets(FEW[:1])[0]
    angles = torch.randn(17, 3, generator=torch.Generator().manual_seed(1))
    root = torch.tensor([0.3, -0.2, 1.1])
    found = forward(lengths, angles, root)
    for k in range(17):
        chain, j = [], k
        while j >= 0:
            chain.append(j)
            j = PARENTS[j]
        place = torch.eye(4)
        for j in reversed(chain):
            step = torch.eye(4)
            step[:3, :3] = rotation(angles[j])
            step[:3, 3] = lengths[j] if j else root
            place = place @ step
        torch.testing.assert_close(found.joints[k], place[:3, 3], atol=1e-6, rtol=0)
        torch.testing.assert_close(found.turns[k], place[:3, :3], atol=1e-6, rtol=0)


def test_the_other_side_is_the_mirror_image():
    stood = posed(6)
    front, back = draw(FEW, stood, 64, azimuth=25), draw(FEW, stood, 64, azimuth=205)
    torch.testing.assert_close(front.skeleton[..., 0], 64 - back.skeleton[..., 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(front.skeleton[..., 1], back.skeleton[..., 1])
    torch.testing.assert_close(front.image[:, 3], back.image[:, 3].flip(2), atol=1e-4, rtol=0)
    left, right = (NUMBER[f"{side} shoulder"] for side in ("left", "right"))
    plain = draw(FEW, standing(FEW), 64, azimuth=0), draw(FEW, standing(FEW), 64, azimuth=180)
    assert bool((plain[0].skeleton[:, left, 0] > plain[0].skeleton[:, right, 0]).all())
    assert bool((plain[1].skeleton[:, left, 0] < plain[1].skeleton[:, right, 0]).all())


def test_the_part_map_leads_back_to_the_pixel():
    """The point of a part's surface at (u, v), projected, is the middle of the pixel that shows it."""
    i, y, x, _, points = shown()
    torch.testing.assert_close(points[:, :2], torch.stack([x, y], -1) + 0.5, atol=2e-3, rtol=0)
    assert len(i) > 500


def test_the_surface_seen_is_the_near_one():
    """The slow twin: of very many points of a part, none that is seen at the same place is nearer."""
    solid, stood = solids(FEW, posed(6)), posed(6)
    cloud = project(
        solid.at(*everywhere(151, 96)).unflatten(0, (6, 16)).flatten(1, 2), stood.joints[:, 0], torch.tensor(SIDES), 64
    )
    cloud = cloud.unflatten(1, (16, -1))
    for i, part, point in zip(*(of[::9] for of in (shown()[0], *shown()[3:])), strict=True):
        beside = (cloud[i, part, :, :2] - point[:2]).norm(dim=-1) < 0.2
        assert not bool((cloud[i, part, beside, 2] < point[2] - 0.03).any())


def test_masks_and_part_map_agree():
    assert float(SEEN.masks.sum(1).max()) <= 1 + 1e-5
    torch.testing.assert_close(SEEN.image[:, 3] / 2 + 0.5, SEEN.masks.sum(1), atol=1e-5, rtol=0)
    there = SEEN.masks.sum(1) >= 0.5
    assert torch.equal(SEEN.parts > 0, there)
    shown = SEEN.masks.gather(1, (SEEN.parts - 1).clamp(min=0)[:, None])[:, 0]
    torch.testing.assert_close(shown[there], SEEN.masks.amax(1)[there], atol=1e-5, rtol=0)
    assert bool(((SEEN.uv >= 0) & (SEEN.uv <= 1)).all())


def test_a_picture_is_its_albedo_times_its_shading():
    torch.testing.assert_close(SEEN.image[:, :3], 2 * SEEN.albedo * SEEN.shading - 1)
    nobody = SEEN.masks.sum(1) == 0
    assert bool((SEEN.image[:, :3].permute(0, 2, 3, 1)[nobody] == 1).all())
    assert float(SEEN.shading[:, 0][~nobody].min()) < 0.7


def sampled(picture, places):
    """(3,) of a picture (3, n, n) between its four nearest texels, x and y in -1 .. 1: bilinear sampling, written out."""
    n = picture.shape[-1]
    x, y = ((float(place) + 1) / 2 * n - 0.5 for place in places)
    left, top = math.floor(x), math.floor(y)
    out = torch.zeros(3)
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        out += (1 - abs(x - column)) * (1 - abs(y - row)) * picture[:, row, column]
    return out


def test_the_flat_garment_through_the_warp_is_the_albedo():
    flats = flat([g for f in FEW for g in f.garments]).unflatten(0, (6, 2))
    found = 0
    for i, slot, y, x in (SEEN.worn & (SEEN.masks.amax(1) > 0.9999)[:, None]).nonzero()[::11].tolist():
        cloth = sampled(flats[i, slot, :3], SEEN.warp[i, slot, y, x]) / 2 + 0.5
        torch.testing.assert_close(cloth, SEEN.albedo[i, :, y, x], atol=1e-4, rtol=0)
        found += 1
    assert found > 50
    for slot in range(2):  # and as everyone will do it; where the cloth is not all of the pixel it may be off by what is not
        through = grid_sample(flats[:, slot, :3], SEEN.warp[:, slot], align_corners=False) / 2 + 0.5
        off = (through - SEEN.albedo).abs().amax(1)
        assert bool((off <= 1 - SEEN.masks.amax(1) + 2e-3)[SEEN.worn[:, slot]].all())


def test_the_warp_ends_with_the_garment():
    assert torch.equal((SEEN.warp != OUTSIDE).all(-1), SEEN.worn)
    assert torch.equal((SEEN.warp.abs() <= 1).all(-1), SEEN.worn)
    for i, f in enumerate(FEW):
        for slot, garment in enumerate(f.garments):
            of_it = torch.isin(SEEN.parts[i], torch.tensor(covers(garment)) + 1)
            assert torch.equal(SEEN.worn[i, slot], of_it)


def test_no_two_points_of_a_garment_lie_on_each_other():
    """Cut open: the area that lies flat is the sum of the areas of its panels."""
    u, v = (axis.flatten() for axis in torch.meshgrid(*[(torch.arange(16) + 0.5) / 16] * 2, indexing="ij"))
    for slot in ("shirt", "trousers"):
        parts = torch.tensor(
            [k for k, name in enumerate(PARTS) if name.removeprefix("left ").removeprefix("right ") in COVERS[slot]]
        )
        places = lie(parts[:, None], u.expand(len(parts), -1), v.expand(len(parts), -1)).flatten(0, 1)
        assert float(places.abs().max()) < 1 - 2 / FLAT
        apart = torch.cdist(places.double(), places.double())
        assert float(apart.fill_diagonal_(1).min()) > 1e-4


def test_undressing_changes_the_albedo_of_the_garment_alone():
    stood = posed(6)
    bare = draw(FEW, stood, 64, azimuth=SIDES, wear=("bottom",))
    assert torch.equal(bare.masks, SEEN.masks) and torch.equal(bare.shading, SEEN.shading)
    assert not bool(bare.worn[:, 0].any()) and torch.equal(bare.worn[:, 1], SEEN.worn[:, 1])
    covered = torch.stack([SEEN.masks[i, list(covers(f.top))].sum(0) for i, f in enumerate(FEW)])
    assert bool(((bare.albedo - SEEN.albedo).abs().amax(1) <= covered + 1e-5).all())


def test_any_picture_can_be_worn():
    flats = torch.rand(1, 2, 4, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    dressed = draw(FEW[:1], standing(FEW[:1]), 64, flats=flats)
    inside = dressed.worn[0, 0] & (dressed.masks[0].amax(0) > 0.9999)
    through = grid_sample(flats[:, 0, :3], dressed.warp[:, 0], align_corners=False, padding_mode="border")[0] / 2 + 0.5
    torch.testing.assert_close(through[:, inside], dressed.albedo[0][:, inside], atol=1e-4, rtol=0)


def test_a_figure_is_the_same_alone_and_among_others():
    stood = posed(6)
    alone = draw(FEW[3:4], Posed(stood.joints[3:4], stood.turns[3:4]), 64, azimuth=180)
    for name in ("image", "albedo", "shading", "masks"):
        torch.testing.assert_close(getattr(SEEN, name)[3:4], getattr(alone, name), atol=2e-6, rtol=0)
    assert float((SEEN.parts[3] != alone.parts[0]).float().mean()) < 1e-3


def test_a_plain_shirt_has_one_colour():
    plain = flat([Garment(kind="vest", colour="red", texture="plain")])[0]
    cloth = plain[:3, plain[3] == 1]
    torch.testing.assert_close(cloth[:, 0] / 2 + 0.5, torch.tensor([0.90, 0.12, 0.12]))
    assert torch.equal(cloth, cloth[:, :1].expand_as(cloth))
    assert bool((plain[:3, plain[3] == -1] == 1).all())


def test_what_is_said_of_a_figure_is_true_of_it_and_not_of_all():
    others = 0
    for i in range(40):
        one = figure(0, i)
        words = introduce(one, "wave", azimuth=90 * (i % 4), seed=i)
        said = meet(words)
        assert said.true_of(one, "wave", 90 * (i % 4)), words
        assert not said.true_of(one, "walk", 90 * (i % 4)) and not said.true_of(one, "wave", 90 * (i % 4) + 90)
        others += said.true_of(figure(0, i + 1), "wave", 90 * (i % 4))
    assert others < 2


def test_a_sentence_is_read_as_it_is_written():
    assert meet("A person in a red striped shirt waves") == Introduction(Worn("shirt", "red", "striped"), None, "wave", None)
    assert meet("back view of a figure in violet pants") == Introduction(None, Worn("trousers", "purple"), None, "back")
    assert meet("a person") == Introduction()


@pytest.mark.parametrize(
    "words", ["a dog waves", "a person in a red hat", "", "a person in a shirt and a vest", "a person flies"]
)
def test_other_sentences_are_refused_in_one_line(words):
    with pytest.raises(UserError) as told:
        meet(words)
    assert "\n" not in str(told.value)


def test_impossible_requests_are_told():
    stood = standing(FEW)
    with pytest.raises(UserError, match="count from 0"):
        figure(0, -1)
    with pytest.raises(UserError, match="32 to 128"):
        draw(FEW, stood, 16)
    with pytest.raises(UserError, match="'hat' cannot be worn: use top, bottom"):
        draw(FEW, stood, 64, wear=("hat",))
    with pytest.raises(UserError, match="6 figures in 6 poses from 2 sides"):
        draw(FEW, stood, 64, azimuth=[0, 1])
    with pytest.raises(UserError, match="0 figures"):
        draw([], Posed(torch.zeros(0, 17, 3), torch.zeros(0, 17, 3, 3)), 64)
    with pytest.raises(UserError, match="'fly' is not known"):
        introduce(FEW[0], "fly")


def test_a_figure_may_leave_the_picture():
    stood = standing(FEW)
    still = draw(FEW, stood, 64).image
    up = draw(FEW, Posed(stood.joints + torch.tensor([0, 0, 1.5]), stood.turns), 64).image  # 1.5 m are 40 px
    torch.testing.assert_close(up[:, :, :24], still[:, :, 40:], atol=1e-4, rtol=0)
    assert bool((up[:, :3, 24:] == 1).all())
    gone = draw(FEW, Posed(stood.joints - torch.tensor([0, 0, 9.0]), stood.turns), 64)
    assert bool((gone.image[:, 3] == -1).all()) and not bool(gone.parts.any()) and not bool(gone.worn.any())


def test_no_part_outgrows_its_window():
    many = [figure(11, i) for i in range(300)]
    solid = solids(many, standing(many))
    reach = solid.length / 2 + solid.radii.amax(-1)
    assert float(reach.max()) < HALF


def test_larger_pictures_show_the_same():
    small, large = (draw(FEW, standing(FEW), size, azimuth=30).image for size in (64, 128))
    halved = torch.nn.functional.avg_pool2d(large, 2)
    assert float((small - halved).abs().mean()) < 0.02


def test_portraits_show_what_was_drawn():
    for picture, parts in zip(part_maps(SEEN), SEEN.parts, strict=True):
        assert np.array_equal(np.asarray(picture), parts.numpy())
    frames = film(FEW[0], "wave", 5, 32)
    assert np.abs(np.asarray(frames[0]).astype(int) - np.asarray(frames[-1])).max() <= 3  # once through, and back
    assert [picture.size for picture in figure_card(FEW[0], 32, "jump")] == [(32, 32)] * 9
