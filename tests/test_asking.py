"""Systems that are asked otherwise than by sentence and solver, through the same front door."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_painters
import torch

import diorama
from diorama.asking import LISTED, Asking, needs_sentence
from diorama.errors import UserError
from diorama.processes.solvers import heun
from diorama.recipe import Request, read_recipe
from diorama.types import NO_LABEL

SLUGS = ["ddpm", "guided-diffusion", "rcg", "masked-tokens"]
ASKED = {"guided-diffusion": "star", "masked-tokens": "a red square"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tiny_painters.save(tmp_path_factory.mktemp("painters"))


@pytest.fixture(scope="module")
def models(folders):
    before = torch.get_num_threads()
    yield {slug: diorama.load(folder, dtype="float32", threads=1) for slug, folder in folders.items()}
    torch.set_num_threads(before)


def pixels(picture):
    return np.asarray(picture).astype(int)


def given(model, request, monkeypatch):
    """What its `sample` is given for this request."""
    seen, sample = {}, model.system.sample

    def spy(**how):
        seen.update(how)
        return sample(**how)

    with monkeypatch.context() as patch:
        patch.setattr(model.asking.system, "sample", spy, raising=True)
        list(model.stream([request]))
    return seen


# --- making pictures ------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", SLUGS)
def test_picture_i_of_a_batch_is_the_picture_of_seed_plus_i_alone(models, slug):
    prompt = ASKED.get(slug, "")
    together = models[slug].sample(prompt, seed=3, n=3, steps=4)
    assert [(p.mode, p.size, p.recipe.seed) for p in together] == [("RGB", (16, 16), 3 + i) for i in range(3)]
    for i, picture in enumerate(together):
        (alone,) = models[slug].sample(prompt, seed=3 + i, steps=4)
        assert np.abs(pixels(alone) - pixels(picture)).max() <= 1
    assert any((pixels(together[0]) != pixels(picture)).any() for picture in together[1:])


@pytest.mark.parametrize("slug", SLUGS)
def test_replay_is_bit_for_bit_from_the_file(models, tmp_path, slug):
    for picture in models[slug].sample(ASKED.get(slug, ""), seed=11, n=2, steps=3, size=24):
        picture.save(tmp_path / "x.png")
        recipe = read_recipe(tmp_path / "x.png")
        assert recipe == picture.recipe
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = models[slug].replay(recipe)
        assert again.tobytes() == picture.tobytes()
        assert again.recipe == recipe


@pytest.mark.parametrize(
    ("slug", "own"),
    [
        ("ddpm", {"steps": 250}),
        ("guided-diffusion", {"steps": 16, "guidance": 1.0, "solver": "dpmpp_2m"}),
        ("rcg", {"steps": 20, "guidance": 2.0}),
        ("masked-tokens", {"steps": 8, "guidance": 3.0}),
    ],
)
def test_what_is_not_given_is_the_systems_own_choice(models, slug, own):
    assert models[slug].defaults == own
    resolved = models[slug].resolve(Request(prompt=ASKED.get(slug, "")))
    assert {name: getattr(resolved, name) for name in ("steps", "guidance", "solver")} == {
        "guidance": None,
        "solver": None,
        **own,
    }


def test_a_recipe_names_no_sampler_and_no_guidance_that_there_are_not(models):
    (picture,) = models["ddpm"].sample(steps=1)
    assert picture.recipe.parameters.startswith("\nSteps: 1, Seed: 0, Size: 16x16, ")
    assert picture.recipe.text_length == 0


def test_a_recipe_without_a_choice_that_the_model_makes_is_refused(models):
    (picture,) = models["guided-diffusion"].sample(steps=1)
    with pytest.raises(UserError, match="a recipe without solver makes no picture"):
        models["guided-diffusion"].replay(replace(picture.recipe, solver=None))


def test_pictures_of_three_channels_are_opaque(models):
    x = models["ddpm"]._sample([Request(steps=2)], lambda step: None)
    assert x.shape == (1, 4, 16, 16)
    assert torch.equal(x[:, 3:], torch.ones(1, 1, 16, 16))


def test_a_defaults_entry_of_the_index_counts_where_the_system_takes_it(folders, tmp_path):
    system = diorama.load(folders["ddpm"]).system
    system.save_pretrained(tmp_path / "ddpm", defaults={"steps": 3, "guidance": 2.0})
    assert diorama.load(tmp_path / "ddpm").defaults == {"steps": 3}


# --- what each is given ---------------------------------------------------------------------------


def test_a_class_is_asked_by_its_name_in_any_case(models, monkeypatch):
    model = models["guided-diffusion"]
    assert given(model, Request(prompt="STAR", steps=1), monkeypatch)["label"].tolist() == [2]
    assert given(model, Request(steps=1), monkeypatch)["label"].tolist() == [NO_LABEL]
    assert model.resolve(Request(prompt="STAR")).prompt == "Star"


def test_each_picture_of_a_chunk_has_its_own_class(models):
    model = models["guided-diffusion"]
    wanted = [Request(prompt=name, seed=5, steps=3) for name in ("circle", "", "Star")]
    for request, picture in zip(wanted, model.stream(wanted), strict=True):
        assert picture.recipe.chunk == 3
        assert np.abs(pixels(next(iter(model.stream([request])))) - pixels(picture)).max() <= 1


def test_a_solver_goes_by_its_name_or_as_itself(models, monkeypatch):
    assert "solver" not in given(models["ddpm"], Request(steps=1), monkeypatch)
    assert given(models["ddpm"], Request(steps=1, solver="heun"), monkeypatch)["solver"] is heun
    assert given(models["guided-diffusion"], Request(steps=1, solver="heun"), monkeypatch)["solver"] == "heun"


def test_the_labels_of_a_system_of_sentences_are_its_styles(models, monkeypatch):
    model = models["masked-tokens"]
    assert model.styles == tiny.STYLES
    seen = given(model, Request(prompt="a red square", style="Solid", negative="round", steps=1), monkeypatch)
    assert (seen["prompts"], seen["labels"], seen["negative"]) == (["a red square"], ["solid"], ["round"])


def test_where_tokens_are_drawn_pictures_go_one_by_one(models):
    sizes = {slug: [len(chunk) for chunk in model.chunks([Request()] * 3)] for slug, model in models.items()}
    assert sizes == {"ddpm": [3], "guided-diffusion": [3], "rcg": [1, 1, 1], "masked-tokens": [1, 1, 1]}


# --- what cannot be asked for ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slug", "asked", "words"),
    [
        ("ddpm", {"prompt": "a cat"}, "prompt 'a cat' is not allowed: the model ddpm is asked for nothing, leave it out"),
        ("ddpm", {"negative": "blur"}, "negative 'blur' is not allowed: the model ddpm takes none, leave it out"),
        ("ddpm", {"guidance": 0.0}, "guidance 0.0 is not allowed"),
        ("ddpm", {"style": "flat"}, "style 'flat' is not known: the model ddpm has none, leave it out"),
        ("ddpm", {"transparent": True}, "transparent True is not allowed: the model ddpm makes RGB, leave it out"),
        ("rcg", {"prompt": "a cat"}, "is asked for nothing"),
        ("rcg", {"solver": "euler"}, "solver 'euler' is not allowed: the model rcg takes none"),
        ("guided-diffusion", {"negative": "circle"}, "takes none"),
        ("guided-diffusion", {"transparent": True}, "makes RGB"),
        ("guided-diffusion", {"prompt": "squares"}, "class 'squares' is not known: use square, Star, circle$"),
        ("masked-tokens", {"prompt": "a", "solver": "heun"}, "takes none"),
        ("masked-tokens", {"prompt": "a", "style": "soled"}, "style 'soled' is not known: use solid, flat"),
    ],
)
def test_what_a_model_does_not_take_is_one_line_before_anything_is_sampled(models, monkeypatch, slug, asked, words):
    monkeypatch.setattr(models[slug], "_sample", lambda *_: pytest.fail("it sampled"))
    with pytest.raises(UserError, match=words) as error:
        list(models[slug].stream([Request(), Request(**asked)]))
    assert "\n" not in str(error.value)


def test_tokens_of_a_codec_may_be_transparent(models):
    assert [models[slug].sample(steps=1, transparent=True)[0].mode for slug in ("rcg", "masked-tokens")] == ["RGBA", "RGBA"]


def test_of_many_classes_the_nearest_are_told():
    names = [f"thing {i}" for i in range(1000)] + ["zebra"]

    class Painter:
        known_labels = tuple(names)

        def part_types(self):
            return {}

        def sample(self, label, *, steps=1, noise): ...

    with pytest.raises(UserError, match=r"class 'zebras' is not known: use zebra, .*, \.\.\.$") as error:
        Asking(Painter(), "painter").understood(Request(prompt="zebras"))
    assert str(error.value).count(",") == LISTED


def test_without_classes_any_name_is_told_to_be_left_out(tmp_path):
    system = tiny_painters.GuidedDiffusion(tiny_painters.unet(100.0), (), 16)
    system.save_pretrained(tmp_path / "gd")
    model = diorama.load(tmp_path / "gd", dtype="float32")
    assert model.sample(steps=1)[0].size == (16, 16)
    with pytest.raises(UserError, match="class 'star' is not known: the model gd has none, leave it out"):
        model.sample("star")


def test_which_need_a_sentence(folders, tiny_model):
    need = {slug for slug, folder in folders.items() if needs_sentence(folder)}
    assert need == {"masked-tokens"}
    assert needs_sentence(Path(tiny_model))
