import torch

from diorama.conditions.clicks import correction, drawn, middle, somewhere
from diorama.networks.prompts import AWAY, MEANT


def disc(x, y, radius, size=16):
    ys, xs = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    return ((xs - x) ** 2 + (ys - y) ** 2) <= radius**2


def test_every_pixel_of_a_mask_is_as_likely():
    mask = disc(5, 9, 2.3)
    n = int(mask.sum())
    points = somewhere(mask.expand(n, -1, -1), (torch.arange(n) + 0.5) / n)
    x, y = points.long().unbind(1)
    assert torch.equal(points, points.floor() + 0.5)
    hit = torch.zeros_like(mask)
    hit[y, x] = True
    assert torch.equal(hit, mask)


def test_the_middle_of_a_disc_is_its_middle_and_of_a_ring_in_the_ring():
    masks = torch.stack([disc(6.5, 9.5, 4), disc(8, 8, 7) & ~disc(8, 8, 3)])
    points = middle(masks)
    assert torch.equal(points[0], torch.tensor([6.5, 9.5]))
    x, y = points[1].long().tolist()
    assert masks[1, y, x]


def test_a_correction_is_where_the_mask_is_wrong():
    truth = disc(8, 8, 5).expand(3, -1, -1)
    masks = torch.stack([disc(8, 8, 3), disc(8, 8, 7), disc(8, 8, 5)])
    points, says = correction(masks, truth, torch.tensor([0.3, 0.7, 0.5]))
    assert says.tolist() == [MEANT, AWAY, MEANT]
    away = (points - 8).norm(dim=1)
    assert 3 < away[0] <= 5 < away[1] <= 7
    assert away[2] <= 5


def test_a_hand_shakes_by_a_tenth_and_stays_in_the_picture():
    box = torch.tensor([[100, 200, 140, 220], [0, 0, 1024, 1024]])
    one = torch.ones(2, 4)
    assert torch.equal(drawn(box, 0 * one, 1024), box.float())
    assert torch.allclose(drawn(box, one, 1024)[0], torch.tensor([104.0, 202.0, 144.0, 222.0]))
    assert torch.allclose(drawn(box, 99 * one, 1024)[0], torch.tensor([120.0, 220.0, 160.0, 240.0]))  # 20 pixels of 1024 at most
    assert torch.equal(drawn(box, -one, 1024)[1], torch.tensor([0.0, 0.0, 1004.0, 1004.0]))
