"""A scene follows what a painter says of its views: here painters whose every answer is known."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from diorama.codecs.patches import PatchCodec, PatchCodecConfig
from diorama.errors import UserError
from diorama.guidance.classifier_free import classifier_free
from diorama.guidance.distill import denoising
from diorama.scenes.cameras import orbit
from diorama.scenes.cloud import CloudConfig
from diorama.scenes.fields import VoxelConfig, VoxelField
from diorama.systems.base import load_system
from diorama.systems.scenes.dreamfusion import PLAN, PRESETS, VIEWS, Asked, DreamFusion, How, bare, lit
from diorama.types import Batch, Condition, Noise

SIZE = 16
SMALL = VoxelConfig(side=8, middle=(0.0, 0.0, 0.0), half=0.26, samples=8)
FEW = CloudConfig(places=40, degree=0)
QUICK = replace(PLAN, steps=16, lr=0.4, device="cpu")
CALM = How(guidance=1.0, opacity=0.0, turned=0.0, roughness=0.0, shaded=0.0)


class Painter:
    """Thinks that every picture is of one colour, all over, and remembers what it was asked."""

    size, sigmas = SIZE, None
    card, origin = SimpleNamespace(slug="painter"), None

    def __init__(self, colour=(1.0, -1.0, -1.0)):
        self.codec = PatchCodec(PatchCodecConfig())
        picture = torch.tensor([*colour, 1.0])[:, None, None].expand(1, 4, SIZE, SIZE)
        self.picture = self.codec.encode(picture)
        self.sentences, self.asked = [], []

    def requires_grad_(self, on):
        return self

    def eval(self):
        return self

    def to(self, device):
        return self

    def condition(self, prompts):
        self.sentences = list(prompts)
        return Condition(label=torch.arange(len(prompts)))

    def guided(self, scale):
        return classifier_free(self, scale)

    def __call__(self, x, sigma, condition):
        self.asked += condition.label.tolist()
        return self.picture.expand_as(x)


def pictures(system):
    """(b, 3): the mean colour of views from around, in 0 .. 1, on black, and how solid they are."""
    seen = system.turned(4, SIZE)
    alpha = (seen[:, 3:] + 1) / 2
    return ((seen[:, :3] + 1) / 2 - (1 - alpha)).mean((2, 3)), alpha.mean()


@pytest.mark.parametrize("shape", [SMALL, FEW])
def test_a_scene_becomes_what_the_painter_sees(shape):
    if shape is FEW:
        pytest.importorskip("numba")
    system = DreamFusion.over("red", Painter(), shape, replace(CALM, times=(0.4, 0.6)))
    _, before = pictures(system)
    system.dream(QUICK)
    colour, after = pictures(system)
    assert after > before + 0.05  # a painter that sees red everywhere makes it larger
    assert bool((colour[:, 0] > 3 * colour[:, 1:].amax(1)).all())


def test_the_gradient_of_a_view_is_the_painters_pull():
    """With the light off and nothing to keep it solid: w (x - D) / sigma in every pixel."""
    painter = Painter()
    system = DreamFusion.over("red", painter, SMALL, CALM)
    picture = torch.zeros(2, 3, SIZE, SIZE, requires_grad=True)
    azimuth, elevation = torch.tensor([0.0, 180.0]), torch.tensor([0.0, 70.0])
    system.pull(picture, azimuth, elevation, Noise([3, 4])).sum().backward()
    sigma = system.levels(Noise([3, 4]))[:, None, None, None]
    expected = sigma / (1 + sigma**2) * -torch.tensor([1.0, -1.0, -1.0])[:, None, None]
    torch.testing.assert_close(picture.grad, expected.expand_as(picture))
    assert painter.asked == [VIEWS.index("front view"), VIEWS.index("overhead view")]


def test_it_asks_in_words_for_where_it_looks_from_or_for_nothing_but_the_prompt():
    painter = Painter()
    asked = Asked.of(painter, "a red cube")
    assert painter.sentences == [*(f"{view} of a red cube" for view in VIEWS), "a red cube"]
    azimuth, elevation = torch.tensor([10.0, 100.0, 170.0, 170.0]), torch.tensor([0.0, 0.0, 59.0, 61.0])
    assert asked.rows(azimuth, elevation, True).label.tolist() == [0, 1, 2, 3]
    assert asked.rows(azimuth, elevation, False).label.tolist() == [4] * 4


def test_through_a_painter_that_is_sure_nothing_is_left_out():
    """Its slope is 0, so the full gradient is the distilled one over sigma."""
    grads = []
    for how in (CALM, replace(CALM, pull=denoising)):
        picture = torch.zeros(1, 3, SIZE, SIZE, requires_grad=True)
        system = DreamFusion.over("red", Painter(), SMALL, how)
        system.pull(picture, torch.zeros(1), torch.zeros(1), Noise([5])).sum().backward()
        grads.append(picture.grad)
    torch.testing.assert_close(grads[1] * system.levels(Noise([5])), grads[0])


@torch.no_grad()
def test_gaussians_are_seen_as_they_are_rendered_and_lit_by_their_shortest_axes():
    splat = pytest.importorskip("diorama.scenes.splat", exc_type=UserError)
    cloud, camera = DreamFusion.over("red", Painter(), FEW).scene, orbit(1, target=(0.0, 0.0, 0.0), size=SIZE).rows(0)
    seen, drawn = cloud.look(camera, bare), splat.render(cloud.gaussians(), camera)
    torch.testing.assert_close(seen.colour + seen.left[:, None], (drawn.image[:3].flatten(1).T + 1) / 2)
    cloud.scales[:, 1] -= 1.0  # flat: they face along y, and so to a camera at -y
    normals = []
    cloud.look(camera, lambda colours, normal: normals.append(normal) or colours)
    torch.testing.assert_close(normals[0], torch.tensor([0.0, -1.0, 0.0]).expand(40, 3))


def test_loud_noise_grows_rarer_in_the_second_half():
    system = DreamFusion.over("red", Painter(), SMALL)
    noise = lambda: Noise(range(2000))  # noqa: E731
    early = system.levels(noise())
    system.done.fill_(0.5)
    torch.testing.assert_close(system.levels(noise()), early)
    system.done.fill_(1.0)
    t = system.levels(noise())
    t = t / (1 + t)
    low, high = system.how.times[0], system.how.late
    assert low <= float(t.min()) < low + 0.01 and high - 0.01 < float(t.max()) <= high


def test_light_falls_on_what_faces_it():
    towards = torch.tensor([0.0, 0.0, 1.0])
    normals = torch.tensor([[0.0, 0, 1], [0, 1, 0], [0, 0, -1]])
    colours = torch.tensor([0.5, 1.0, 0.0]).expand(3, 3)
    torch.testing.assert_close(lit(towards, 0.4)(colours, normals), torch.tensor([1.0, 0.4, 0.4])[:, None] * colours)
    clay = lit(towards, 0.4, textureless=True)(colours, normals)
    torch.testing.assert_close(clay, torch.tensor([1.0, 0.4, 0.4])[:, None].expand(3, 3))
    assert bare(colours, normals) is colours


def test_light_comes_as_often_as_it_should_and_only_later():
    system = DreamFusion.over("red", Painter(), SMALL, How(shaded=0.75, textureless=0.5))
    colours, normals = torch.full((1, 3), 0.5), torch.tensor([[0.0, 0.0, -1.0]])
    seen = lambda: [float(p(colours, normals)[0, 0]) for p in system.lights(torch.zeros(400), Noise(range(400)))]  # noqa: E731
    assert set(seen()) == {0.5}
    system.done.fill_(0.5)
    found = seen()
    for value, share in ((0.55 * 0.5, 0.375), (0.5, 0.25), (0.55, 0.375)):  # in its colours, without light, of clay
        assert abs(sum(abs(one - value) < 1e-6 for one in found) / 400 - share) < 0.08


def test_what_keeps_it_solid_is_paid_for():
    losses = []
    for how in (CALM, replace(CALM, opacity=1.0), replace(CALM, turned=1.0), replace(CALM, roughness=1.0)):
        system = DreamFusion.over("red", Painter(), SMALL, how)
        with torch.no_grad():
            losses.append(system.loss(Batch(torch.zeros(2, 0)), Noise([0, 1])))
    assert all(bool((loss > losses[0]).all()) for loss in losses[1:])
    torch.testing.assert_close(losses[3] - losses[0], system.scene.roughness().detach().expand(2))


@pytest.mark.parametrize("shape", [SMALL, FEW])
def test_a_scene_is_kept_without_its_painter(tmp_path, shape):
    system = DreamFusion.over("a red cube", Painter(), shape)
    system.save_pretrained(tmp_path / "scene")
    again = load_system(tmp_path / "scene")
    assert isinstance(again, DreamFusion)
    assert type(again.scene) is type(system.scene) and again.prompt == "a red cube" and again.painter == "painter"
    assert all(torch.equal(a, b) for a, b in zip(system.scene.parameters(), again.scene.parameters(), strict=True))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_grids(preset):
    with torch.device("meta"):
        system = DreamFusion(VoxelField(PRESETS[preset]))
    assert sum(p.numel() for p in system.parameters()) == 4 * PRESETS[preset].side ** 3
