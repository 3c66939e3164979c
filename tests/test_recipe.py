import json
import re
import string
import subprocess
import sys
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diorama.errors import UserError
from diorama.recipe import (
    LONGEST_PROMPT,
    SAMPLERS,
    Picture,
    Recipe,
    Request,
    read_recipe,
    read_recipes,
    save,
    tell_of_sheet,
)

RECIPE = Recipe(
    prompt="a red apple",
    seed=1,
    steps=20,
    guidance=4.0,
    solver="euler",
    size=128,
    model="default",
    weights="0123456789abcdef" * 4,
    diorama="0.1.0",
    torch="2.13.0",
    dtype="float32",
    device="cpu",
    processor="x86_64-avx2",
    threads=2,
    chunk=8,
    row=3,
    text_length=24,
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.text("a,:\n\"\\é☃🍎' ", max_size=40)
RECIPES = st.builds(
    lambda **changed: replace(RECIPE, **changed),
    prompt=TEXTS,
    negative=TEXTS,
    seed=st.integers(0, 2**63 - 1),
    style=st.none() | st.text(string.ascii_letters + ",: ", max_size=20),
    steps=st.integers(1, 1000),
    guidance=st.floats(0, 1e6),
    solver=st.sampled_from(list(SAMPLERS)),
    size=st.integers(16, 1024),
    transparent=st.booleans(),
)
# how AUTOMATIC1111's web UI reads the last line (modules/infotext_utils.py)
THEIRS = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


@given(RECIPES)
def test_json_gives_back_the_same_recipe(recipe):
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
def test_a_file_gives_back_the_same_recipe(tmp_path, suffix):
    @given(RECIPES)
    def check(recipe):
        path = tmp_path / f"x{suffix}"
        Picture.of(Image.new("RGB", (4, 4)), recipe).save(path)
        assert read_recipe(path) == recipe

    check()


def test_parameters_are_what_other_tools_read():
    lines = replace(RECIPE, negative="blurry, text").parameters.split("\n")
    assert lines[:2] == ["a red apple", "Negative prompt: blurry, text"]
    made = "Model hash: 0123456789, Model: default, Version: diorama 0.1.0"
    assert lines[2] == f"Steps: 20, Sampler: Euler, CFG scale: 4, Seed: 1, Size: 128x128, {made}"
    assert replace(RECIPE, prompt="").parameters.startswith("\nSteps: 20")


@given(RECIPES, st.text(string.ascii_letters + ',:" ', min_size=1, max_size=20))
def test_their_expression_reads_our_line(recipe, model):
    line = replace(recipe, model=model).parameters.split("\n")[-1]
    found = {name: json.loads(value) if value.startswith('"') else value for name, value in THEIRS.findall(line)}
    assert found["Seed"] == str(recipe.seed)
    assert found["Model"].strip() == model.strip()
    assert found["Version"] == "diorama 0.1.0"


def test_the_file_says_it_is_synthetic_and_nothing_of_the_machine(tmp_path):
    Picture.of(Image.new("RGB", (4, 4)), RECIPE).save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert "trainedAlgorithmicMedia" in image.text["XML:com.adobe.xmp"]
        assert image.text["parameters"] == RECIPE.parameters
        assert set(image.text) == {"parameters", "diorama", "XML:com.adobe.xmp"}
    assert str(tmp_path).encode() not in (tmp_path / "x.png").read_bytes()


def test_no_recipe_writes_no_metadata_at_all(tmp_path):
    for name in ("x.png", "x.webp", "x.jpg"):
        save(Picture.of(Image.new("RGB", (4, 4)), RECIPE), tmp_path / name, recipe=False)
        with Image.open(tmp_path / name) as image:
            assert not {"parameters", "diorama", "xmp", "exif", "XML:com.adobe.xmp"} & set(image.info)


def test_webp_keeps_every_pixel_under_transparency(tmp_path):
    image = Image.effect_noise((16, 16), 90).convert("RGBA")
    image.putalpha(0)
    save(image, tmp_path / "x.webp")
    with Image.open(tmp_path / "x.webp") as read:
        assert read.tobytes() == image.tobytes()


def test_a_sheet_carries_all_its_recipes(tmp_path):
    rows, paper = [RECIPE, replace(RECIPE, seed=2)], Image.new("RGB", (8, 8))
    tell_of_sheet(paper, rows)
    save(paper, tmp_path / "x.png")
    assert read_recipes(tmp_path / "x.png") == rows
    with pytest.raises(UserError, match="sheet of 2"):
        read_recipe(tmp_path / "x.png")


def written(path, **chunks):
    info = PngInfo()
    for key, text in chunks.items():
        info.add_text(key, text)
    Image.new("RGB", (4, 4)).save(path, pnginfo=info)
    return path


def changed(**values):
    return json.dumps({**RECIPE.to_dict(), **values})


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ({}, "no recipe of any tool"),
        ({"parameters": "a cat\nSteps: 20, Sampler: Euler a"}, "A1111 parameters line"),
        ({"prompt": "{}", "workflow": "{}"}, "ComfyUI"),
        ({"invokeai_metadata": "{}"}, "InvokeAI"),
        ({"parameters": '{"sui_image_params": {}}'}, "SwarmUI"),
        ({"diorama": "{"}, "not valid JSON"),
        ({"diorama": "[" * 100_000}, "not valid JSON"),
        ({"diorama": "[]"}, "not a JSON object"),
        ({"diorama": '{"prompt": "x"}'}, "lacks"),
        ({"diorama": changed(format_version=99)}, "update diorama"),
        ({"diorama": changed(chunk=10**9)}, "chunk"),
        ({"diorama": changed(row=8)}, "row"),
        ({"diorama": changed(steps=None)}, "steps"),
        ({"diorama": changed(seed="1")}, "seed"),
        ({"diorama": changed(weights=5)}, "not text"),
        ({"diorama": changed(guidance=float("nan"))}, "guidance"),
    ],
)
def test_a_foreign_or_damaged_picture_is_told_in_one_line(tmp_path, chunks, words):
    path = written(tmp_path / "x.png", **chunks)
    with pytest.raises(UserError, match=words) as error:
        read_recipe(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 30])
def test_what_is_no_picture_is_told(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        read_recipe(tmp_path / "x.png")
    with pytest.raises(UserError, match="does not exist"):
        read_recipe(tmp_path / "y.png")
    with pytest.raises(UserError, match="cannot be read"):
        read_recipe(tmp_path)


BAD = {
    "prompt": ["x" * (LONGEST_PROMPT + 1), 3, "\udce9"],
    "negative": ["x" * (LONGEST_PROMPT + 1), None],
    "seed": [-1, 2**63, 1.5, "7", True],
    "steps": [0, -1, 1001, 2.5, "ten"],
    "guidance": [-0.1, float("nan"), float("inf"), "4"],
    "size": [15, 1025, -128, 10**12, 64.0],
    "solver": ["eular", 3],
    "style": [3],
    "transparent": ["yes", 1],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_what_cannot_be_asked_for_is_one_line(name, value):
    with pytest.raises(UserError) as error:
        Request(**{name: value})
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_a_picture_in_another_format_is_refused_before_it_is_written(tmp_path):
    with pytest.raises(UserError, match=r"\.gif"):
        save(Image.new("RGB", (4, 4)), tmp_path / "x.gif")
    with pytest.raises(UserError, match="transparency"):
        save(Image.new("RGBA", (4, 4)), tmp_path / "x.jpg")
    with pytest.raises(UserError, match="create the folder"):
        save(Image.new("RGB", (4, 4)), tmp_path / "new" / "x.png")
    assert not list(tmp_path.iterdir())


def test_an_edited_picture_is_a_plain_one():
    picture = Picture.of(Image.new("RGB", (4, 4)), RECIPE)
    assert type(picture.resize((2, 2))) is Image.Image
    assert picture.recipe == RECIPE
    assert set(f.name for f in fields(Recipe)) == set(json.loads(picture.info["diorama"]))


def test_nothing_here_imports_torch():
    names = "diorama, diorama.recipe, diorama.models, diorama.apps.cli, diorama.apps.generate"
    code = f"import sys, {names}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
