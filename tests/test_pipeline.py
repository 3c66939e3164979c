import json
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import diorama
from diorama.errors import UserError
from diorama.models import locate, weights_hash
from diorama.networks.precision import has_bfloat16_units
from diorama.pipeline import CHUNK, load, requests
from diorama.processes.solvers import SOLVERS
from diorama.recipe import SAMPLERS, Recipe, Request, read_recipe
from diorama.systems.images.autoencoder import Autoencoder

WORDS = [
    "a red apple",
    "",
    "two cats, one hat",
    "robot",
    "x",
    "sea",
    "a very long sentence that is cut somewhere",
    "é☃",
    "b",
    "c",
]


@pytest.fixture(scope="module")
def model(tiny_model):
    before = torch.get_num_threads()
    yield diorama.load(tiny_model, dtype="float32", threads=1)
    torch.set_num_threads(before)


def pixels(image):
    return np.asarray(image).astype(int)


def farthest(a, b):
    return np.abs(pixels(a) - pixels(b)).max()


# --- seeds and batches ----------------------------------------------------------------------------


def test_words_in_pictures_out(model):
    pictures = model.sample(["a red apple", "robot"], seed=7)
    assert [(p.mode, p.size) for p in pictures] == [("RGB", (32, 32))] * 2
    assert all(isinstance(p, Image.Image) for p in pictures)
    assert farthest(*pictures) > 10
    assert model.sample([]) == []
    assert len(model.sample("robot", n=2)) == 2


def test_picture_i_of_a_batch_is_the_picture_of_seed_plus_i_alone(model):
    together = model.sample(WORDS, seed=3, negative="blur", style="noto", solver="heun", steps=3)
    assert len(WORDS) > CHUNK[torch.float32]
    for i, prompt in enumerate(WORDS):
        (alone,) = model.sample(prompt, seed=3 + i, negative="blur", style="noto", solver="heun", steps=3)
        assert alone.recipe.seed == together[i].recipe.seed == 3 + i
        assert farthest(alone, together[i]) <= 1


def test_n_pictures_of_each_sentence_count_on(model):
    pictures = model.sample(["a", "b"], seed=5, n=2, steps=1)
    assert [(p.recipe.prompt, p.recipe.seed) for p in pictures] == [("a", 5), ("a", 6), ("b", 7), ("b", 8)]


@pytest.mark.skipif(not has_bfloat16_units(), reason="needs bf16 units (AMX or AVX512-BF16)")
def test_in_bfloat16_a_batch_gives_the_very_same_bits(tiny_model):
    model = diorama.load(tiny_model, dtype="bfloat16")
    together = model.sample(["a", "b", "c"], steps=2)
    assert all(
        p.tobytes() == model.sample(w, seed=i, steps=2)[0].tobytes() for i, (w, p) in enumerate(zip("abc", together, strict=True))
    )


def test_requests_of_different_kinds_go_through_one_stream(model):
    wanted = [
        Request(prompt="a", seed=1),
        Request(prompt="a", seed=1, steps=2),
        Request(prompt="a", seed=1, negative="b", style="noto"),
        Request(prompt="a", seed=1, size=48, transparent=True),
    ]
    made = list(model.stream(wanted))
    assert [p.recipe.seed for p in made] == [1] * 4
    assert made[3].size == (48, 48)
    for request, picture in zip(wanted, made, strict=True):
        assert farthest(picture, next(iter(model.stream([request])))) <= 1


def test_an_empty_negative_and_none_are_the_same(model):
    (asked,) = model.stream([Request(prompt="a", style="noto", seed=1)])
    mixed = list(
        model.stream([Request(prompt="a", style="noto", seed=1), Request(prompt="a", style="noto", seed=1, negative="b")])
    )
    assert farthest(asked, mixed[0]) <= 1
    assert farthest(asked, mixed[1]) > 1


def test_no_guidance_asks_the_network_once(model, monkeypatch):
    sizes = []
    forward = model.system.network.forward
    monkeypatch.setattr(model.system.network, "forward", lambda x, *rest: sizes.append(len(x)) or forward(x, *rest))
    model.sample("a", guidance=1, steps=2)
    model.sample("a", guidance=2, steps=2)
    assert sizes == [1, 1, 2, 2]


def test_steps_are_told_across_chunks(model):
    seen = []
    model.sample("a", n=CHUNK[torch.float32] + 1, steps=2, on_step=lambda step: seen.append((step.index, step.n)))
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4)]


# --- sizes and transparency -----------------------------------------------------------------------


def test_transparent_pictures_lie_on_white_as_the_opaque_ones_do(model):
    (opaque,) = model.sample("a red apple", seed=1)
    (clear,) = model.sample("a red apple", seed=1, transparent=True)
    assert clear.mode == "RGBA"
    x = model._sample([model.resolve(Request(prompt="a red apple", seed=1))], lambda step: None)[0]
    white, alpha = (x[:3] + 1) / 2, (x[3:] + 1) / 2
    possible = ((white >= 1 - alpha) & (white <= 1)).all(0).numpy()  # random weights also paint what no colour on white can be
    laid = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    assert possible.any()
    assert np.abs(pixels(laid) - pixels(opaque))[possible].max() <= 2


def test_another_size_is_the_same_picture_resampled(model):
    (small,), (large,) = model.sample("a"), model.sample("a", size=96)
    assert large.size == (96, 96)
    assert large.recipe.size == 96
    planes = [
        Image.fromarray(plane.astype(np.float32)).resize((96, 96), Image.Resampling.LANCZOS)
        for plane in pixels(small).transpose(2, 0, 1)
    ]
    expected = np.stack([np.asarray(plane) for plane in planes], -1).clip(0, 255)
    assert np.abs(pixels(large) - expected).max() < 2


# --- recipes and replay ---------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"negative": "b", "style": "noto", "size": 40}, {"transparent": True, "guidance": 1}])
def test_replay_is_bit_for_bit_from_the_file(model, tmp_path, options):
    pictures = model.sample(WORDS[:3], seed=11, steps=2, **options)
    for picture in pictures:
        picture.save(tmp_path / "x.png")
        recipe = read_recipe(tmp_path / "x.png")
        assert recipe == picture.recipe
        assert recipe.chunk == 3
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = model.replay(recipe)
        assert again.tobytes() == picture.tobytes()
        assert again.recipe == recipe


def test_replay_on_other_ground_says_so_and_stays_close(model):
    (picture,) = model.sample("a")
    told = []
    again = model.replay(replace(picture.recipe, processor="a-vacuum-tube", threads=3), told.append)
    assert len(told) == 1
    assert "a-vacuum-tube" in told[0]
    assert "threads 1, then 3" in told[0]
    assert farthest(again, picture) <= 1


def test_replay_with_other_weights_refuses(model, other_model):
    (picture,) = model.sample("a")
    with pytest.raises(UserError, match=r"made with model 'tiny', weights \w{10}, not with 'other'"):
        diorama.load(other_model).replay(picture.recipe)


def test_the_recipe_names_the_model_but_no_path(model, tiny_model):
    (picture,) = model.sample("a")
    assert picture.recipe.model == "tiny"
    assert picture.recipe.weights == model.weights == weights_hash(tiny_model)
    assert picture.recipe.steps == 4  # this model's own default
    assert picture.recipe.guidance == 4.0
    assert str(tiny_model.parent) not in picture.recipe.to_json()


# --- on disk --------------------------------------------------------------------------------------


def test_a_saved_model_makes_the_same_pictures_and_knows_old_recipes(model, tmp_path):
    (picture,) = model.sample("a")
    model.save_pretrained(tmp_path / "copy")
    copy = diorama.load(tmp_path / "copy", dtype="float32")
    assert copy.replay(picture.recipe).tobytes() == picture.tobytes()
    assert copy.defaults == model.defaults
    assert {p.suffix for p in (tmp_path / "copy").rglob("*") if p.is_file()} == {".json", ".safetensors"}
    copy.save_pretrained(tmp_path / "copy")  # onto itself
    assert diorama.load(tmp_path / "copy").weights == model.weights


def test_stored_smaller_it_is_another_model(model, tmp_path):
    model.save_pretrained(tmp_path / "small", storage="int8")
    small = diorama.load(tmp_path / "small", dtype="float32")
    assert small.weights != model.weights
    assert small.name == "tiny"
    assert small.defaults["steps"] == 4
    assert small.sample("a", steps=1)[0].size == (32, 32)


def test_a_run_leads_to_its_model(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "run" / "model")
    assert locate(tmp_path / "run") == tmp_path / "run" / "model"
    (tmp_path / "young" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="not finished"):
        locate(tmp_path / "young")


def break_weights(folder):
    path = folder / "network" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def other_weights(folder):
    shutil.copy(folder / "codec" / "model.safetensors", folder / "network" / "model.safetensors")


def change_index(**changed):
    def change(folder):
        path = folder / "model_index.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))

    return change


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (break_weights, "damaged or truncated"),
        (other_weights, "does not fit"),
        (lambda folder: (folder / "network" / "model.safetensors").unlink(), "not there"),
        (lambda folder: (folder / "network" / "config.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "model_index.json").write_text("[]"), "names no system"),
        (lambda folder: (folder / "model_index.json").unlink(), "not a saved model"),
        (lambda folder: shutil.rmtree(folder), "not known"),
        (change_index(format_version=99), "update diorama"),
        (change_index(system="nonsense"), "not known"),
        (change_index(settings={"colour": 3}), "colour"),
        (change_index(defaults={"steps": "many"}), "steps"),
        (change_index(defaults=[1]), "defaults"),
    ],
)
def test_a_damaged_model_is_one_line(tiny_model, tmp_path, damage, words):
    shutil.copytree(tiny_model, tmp_path / "m")
    damage(tmp_path / "m")
    with pytest.raises(UserError, match=words) as error:
        diorama.load(tmp_path / "m")
    assert "\n" not in str(error.value)


# --- what cannot be asked for ---------------------------------------------------------------------


def test_styles_are_found_by_their_name_in_any_case_and_else_suggested(model):
    assert model.resolve(Request(style="Fluent 3D")).style == "fluent 3d"
    with pytest.raises(UserError, match="use fluent 3d, noto"):
        model.sample("a", style="fluent")


@pytest.mark.parametrize("n", [0, -1, 1001, 1.5])
def test_how_many(n):
    with pytest.raises(UserError, match="n "):
        requests("a", n=n)


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"guidance": float("inf")}, {"size": 1}, {"seed": -1}, {"solver": "x"}, {"seed": 2**63 - 1, "n": 2}]
)
def test_bad_options_fail_before_anything_is_sampled(model, options, monkeypatch):
    monkeypatch.setattr(model, "_sample", lambda *_: pytest.fail("it sampled"))
    with pytest.raises(UserError):
        model.sample("a", **options)


def test_numbers_that_run_away_are_told(model):
    with pytest.raises(UserError, match="not finite"):
        model.sample("a", guidance=1e38)


def test_the_names_of_the_solvers_are_those_there_are():
    assert set(SAMPLERS) == set(SOLVERS)


def test_any_recipe_within_bounds_is_made_or_refused(model):
    (picture,) = model.sample("a")
    with pytest.raises(UserError, match="style"):
        model.replay(replace(picture.recipe, style="cubist"))
    assert isinstance(picture.recipe, Recipe)


def test_a_system_that_makes_no_pictures_of_words_says_so(tmp_path):
    Autoencoder(tiny.codec()).save_pretrained(tmp_path / "codec")
    with pytest.raises(
        UserError, match="a saved autoencoder, which is not asked by sentence and solver, by class or for nothing"
    ):
        load(tmp_path / "codec")
