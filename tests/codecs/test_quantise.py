import pytest
import torch

from diorama.codecs.quantise import VectorQuantiser, VectorQuantiserConfig
from diorama.types import Noise


def quantiser(**changes) -> VectorQuantiser:
    torch.manual_seed(0)
    return VectorQuantiser(VectorQuantiserConfig(**{"codes": 16, "width": 3, "unit": False, **changes}))


def unit(x, dim):
    """Scaled to unit variance, written out."""
    return x / x.square().mean(dim, keepdim=True).sqrt()


@pytest.mark.parametrize("places", [(7,), (4, 5), (2, 3, 2)])
@pytest.mark.parametrize("is_unit", [False, True])
@torch.no_grad()
def test_it_finds_what_a_slow_search_finds(places, is_unit):
    model, z = quantiser(unit=is_unit), Noise([0, 1]).normal(3, *places)
    codebook, near = (unit(model.codebook, 1), unit(z, 1)) if is_unit else (model.codebook, z)
    codes = model(z)
    assert codes.indices.shape == (2, *places)
    for b in range(2):
        for at, index in enumerate(codes.indices[b].flatten().tolist()):
            latent = near[b].flatten(1)[:, at]
            assert index == min(range(16), key=lambda k: (latent - codebook[k]).square().sum())
            assert torch.allclose(codes.z_q[b].flatten(1)[:, at], codebook[index], atol=1e-5)
    assert torch.allclose(model.lookup(codes.indices), codes.z_q, atol=1e-5)


def test_a_direction_is_found_whatever_its_length():
    model, z = quantiser(unit=True), Noise([0]).normal(3, 9)
    assert torch.equal(model(z).indices, model(100 * z).indices)
    assert not torch.equal(quantiser()(z).indices, quantiser()(100 * z).indices)


def test_the_gradient_goes_straight_through():
    z, weight = Noise([0, 1]).normal(3, 4).requires_grad_(), Noise([2, 3]).normal(3, 4)
    (quantiser()(z).z_q * weight).sum().backward()
    assert torch.equal(z.grad, weight)


def test_the_losses_pull_latents_to_codes_and_codes_to_latents():
    """van den Oord et al. 2017, eq. 3: beta (z - e)^2 moves z alone, (z - e)^2 the codes alone."""
    model, z = quantiser(decay=None, beta=0.25), Noise([0, 1]).normal(3, 4).requires_grad_()
    codes = model(z)
    error = (z - codes.z_q).detach()
    assert torch.allclose(codes.loss, 1.25 * error.square().mean((1, 2)))
    codes.loss.sum().backward()
    assert torch.allclose(z.grad, 0.25 * 2 * error / 12, atol=1e-6)
    pull = torch.zeros(16, 3).index_add_(0, codes.indices.flatten(), -2 * error.movedim(1, -1).flatten(0, 1) / 12)
    assert torch.allclose(model.codebook.grad, pull, atol=1e-6)


def test_a_moving_average_takes_no_gradient():
    model = quantiser()
    assert not list(model.parameters())
    assert {"codebook", "uses"} == set(model.state_dict())


def test_codes_become_the_moving_average_of_their_latents():
    """sum_i decay^(n - i) s_i / sum_i decay^(n - i) c_i over the batches i, the first one's even share included."""
    model = quantiser(codes=2, decay=0.9, restart=0.0)
    batches = [Noise([2 * i, 2 * i + 1]).normal(3, 6) for i in range(5)]
    model.update(batches[0], torch.zeros(2, 6, dtype=torch.int64), Noise([0, 1]))
    total, count = model.codebook * model.uses[:, None], model.uses.clone()
    assert torch.allclose(count, torch.full((2,), 0.1 * 12 / 2))
    for i, z in enumerate(batches[1:]):
        indices = Noise([i, i + 9]).integers(2, 6)
        for k in range(2):
            mine = z.movedim(1, -1)[indices == k]
            total[k] = 0.9 * total[k] + 0.1 * mine.sum(0)
            count[k] = 0.9 * count[k] + 0.1 * len(mine)
        model.update(z, indices, Noise([0, 1]))
    assert torch.allclose(model.uses, count, atol=1e-6)
    assert torch.allclose(model.codebook, total / count[:, None], atol=1e-5)


def test_the_first_codes_are_latents_of_every_sample():
    model, z = quantiser(), Noise(range(4)).normal(3, 50)
    model.update(z, model(z).indices, Noise(range(4)))
    same = (model.codebook[:, None] == z.movedim(1, -1).flatten(0, 1)).all(-1)  # (codes, latents)
    assert same.any(1).all()
    assert same.unflatten(1, (4, 50)).any(2).sum(0).tolist() == [4, 4, 4, 4]


def test_the_draw_is_that_of_the_noise_it_is_given():
    z, books = Noise(range(4)).normal(3, 50), []
    for seeds in (range(4), range(4), range(4, 8)):
        model = quantiser()
        model.update(z, model(z).indices, Noise(seeds))
        books.append(model.codebook.clone())
    assert torch.equal(books[0], books[1])
    assert not torch.equal(books[0], books[2])


@pytest.mark.parametrize(("restart", "used"), [(0.0, 1), (0.1, 16)])
def test_codes_that_nothing_needs_begin_anew(restart, used):
    """Sixteen places, one code among them and fifteen that are never the nearest."""
    model, places = quantiser(restart=restart, decay=0.8), 10 * Noise(range(16)).normal(3)
    model.codebook[1:] += 1000
    model.uses += 1
    for step in range(400):
        z = places[Noise.at(0, step, n=4).integers(16, 32)].movedim(-1, 1)
        model.update(z, model(z).indices, Noise.at(1, step, n=4))
    assert len(model(places.T[None]).indices.unique()) == used


def test_latents_that_are_not_finite_change_nothing():
    model, z = quantiser(), Noise([0, 1]).normal(3, 4)
    model.update(z, model(z).indices, Noise([0, 1]))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    z[0, 0, 0] = torch.nan
    model.update(z, model(z).indices, Noise([0, 1]))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("decay", [None, 0.99])
def test_it_is_the_same_after_a_journey_over_the_disk(tmp_path, decay):
    model, z = quantiser(decay=decay), Noise([0, 1]).normal(3, 4)
    model.update(z, model(z).indices, Noise([0, 1]))
    model.save_pretrained(tmp_path / "q")
    again = VectorQuantiser.from_pretrained(tmp_path / "q")
    assert again.config == model.config
    assert torch.equal(again(z).indices, model(z).indices)
    assert torch.equal(again(z).z_q, model(z).z_q)


def test_the_nearest_code_is_the_same_inside_an_autocast():
    model, z = quantiser(codes=512), Noise([0, 1]).normal(3, 100)
    with torch.autocast("cpu", torch.bfloat16):
        inside = model(z)
    assert torch.equal(inside.indices, model(z).indices)
