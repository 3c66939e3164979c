"""A tiny CLIP in transformers' own format: read as a pair of eyes, it sees what transformers sees."""

import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from diorama.apps.cli import main
from diorama.errors import UserError
from diorama.hub.features import BorrowedClip, fetched, title
from diorama.models import fetched_files

transformers = pytest.importorskip("transformers")

SIDE = 16
TEXTS = ["a red cat", "a blue toy on grass", "cat " * 20]  # the last has more pieces than fit


def tokenizer():
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    return transformers.CLIPTokenizer({piece: i for i, piece in enumerate(pieces)}, [], model_max_length=12)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder, words = tmp_path_factory.mktemp("hub") / "tiny", tokenizer()
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {
        **shape,
        "vocab_size": len(words),
        "max_position_embeddings": 12,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**shape, "image_size": SIDE, "patch_size": 4}, projection_dim=8
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture
def theirs(saved):
    return transformers.CLIPModel.from_pretrained(saved).eval()


@pytest.fixture
def copied(saved, tmp_path) -> Path:
    return shutil.copytree(saved, tmp_path / "copied")


def change(file: Path, **values) -> None:
    file.write_text(json.dumps({**(json.loads(file.read_text()) if file.is_file() else {}), **values}))


def pictures(n: int = 3, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3)).astype(np.uint8)


def ours(x: np.ndarray) -> torch.Tensor:
    """As the house has them: alpha too."""
    image = torch.from_numpy(x).movedim(-1, 1) / 127.5 - 1
    return torch.cat([image, torch.ones_like(image[:, :1])], 1)


def pixels(x: np.ndarray, **how) -> torch.Tensor:
    """As transformers prepares them."""
    size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    prepare = transformers.models.clip.image_processing_pil_clip.CLIPImageProcessorPil(**size, **how)
    return torch.as_tensor(np.stack(prepare([Image.fromarray(one) for one in x])["pixel_values"]))


def test_it_sees_and_reads_what_transformers_does(saved, theirs):
    clip, x = BorrowedClip.from_pretrained(saved), pictures()
    words = tokenizer()(TEXTS, padding="max_length", truncation=True, return_tensors="pt")
    with torch.no_grad():
        seen, read = theirs.get_image_features(pixels(x)).pooler_output, theirs.get_text_features(**words).pooler_output
        logits = theirs(**words, pixel_values=pixels(x)).logits_per_image / theirs.logit_scale.exp()
    assert clip.size == SIDE
    assert seen.std(0).min() > 1e-4 and read.std(0).min() > 1e-4  # which differ
    assert torch.allclose(clip.features(ours(x)), seen, atol=1e-6)
    assert torch.allclose(clip.encode_text(TEXTS), F.normalize(read, dim=-1), atol=1e-5)
    assert torch.allclose(clip.encode_image(ours(x)) @ clip.encode_text(TEXTS).T, logits, atol=1e-5)
    assert torch.allclose(clip.encode_text(TEXTS[:1]), clip.encode_text(TEXTS)[:1], atol=1e-5)  # alone or among longer ones


def test_what_it_sees_at_each_place_is_its_blocks_own(saved, theirs):
    clip, x = BorrowedClip.from_pretrained(saved), pictures()
    with torch.no_grad():
        states = theirs.vision_model(pixels(x), output_hidden_states=True).hidden_states
    maps = clip.maps(ours(x))
    assert [level.shape for level in maps] == [(3, 16, 4, 4)] * 2
    for level, state in zip(maps, states[1:], strict=True):
        assert torch.allclose(level[:, :, 1, 2], state[:, 1 + 4 * 1 + 2], atol=1e-5)


@pytest.mark.parametrize("older", [True, False])
def test_colours_are_normalised_as_the_checkpoint_says(copied, theirs, older):
    how = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    file, said = ("preprocessor_config.json", how) if older else ("processor_config.json", {"image_processor": how})
    change(copied / file, **said)
    clip, x = BorrowedClip.from_pretrained(copied), pictures()
    with torch.no_grad():
        seen = theirs.get_image_features(pixels(x, **how)).pooler_output
        other = theirs.get_image_features(pixels(x)).pooler_output
    assert torch.allclose(clip.features(ours(x)), seen, atol=1e-6)
    assert not torch.allclose(seen, other, atol=1e-3)


# --- from the command line ------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "made").mkdir()
    for i, value in enumerate(pictures(6, 20)):
        Image.fromarray(value).save(tmp_path / "made" / f"{i}.png")
        (tmp_path / "made" / f"{i}.txt").write_text(TEXTS[i % 2])
    return tmp_path / "made"


def test_it_scores_pictures(saved, folder, capsys):
    how = ["score", str(folder), "--reference", str(folder), "--paired", "--features", str(saved), "--json"]
    assert main(how) == 0
    found = {row["measure"]: row for row in json.loads(capsys.readouterr().out)["scores"]}
    name = title(saved)
    assert name.startswith("tiny ") and len(name) == len("tiny ") + 10
    for measure in ("CLIP score", "R-precision, 1 of 2", "diversity", "perceptual distance"):
        assert (found[measure]["n"], found[measure]["features"]) == (6, name)
    assert found["perceptual distance"]["value"] == 0


def test_pickled_weights_are_never_read(copied, folder, capsys):
    torch.save({}, copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    assert main(["score", str(folder), "--features", str(copied)]) == 2
    error = capsys.readouterr().err
    assert "copied has no model.safetensors" in error and "weights in pickles, shards" in error
    assert error.count("\n") == 1


def test_another_model_is_told(copied, folder, capsys):
    change(copied / "config.json", model_type="bert")
    assert main(["score", str(folder), "--features", str(copied)]) == 2
    error = capsys.readouterr().err
    assert "copied is no CLIP (model_type 'bert' in its config.json): give a checkpoint with model_type 'clip'" in error
    assert error.count("\n") == 1


# --- on the hub -----------------------------------------------------------------------------------


@pytest.fixture
def hub(saved, monkeypatch, tmp_path):
    """A hub with one CLIP, `some/clip`; what was asked of it."""
    asked, snapshot = [], tmp_path / "models--some--clip" / "snapshots" / "0a1b"
    snapshot.mkdir(parents=True)

    def config(repo, file, revision):
        asked.append((repo, file, revision))
        return str(shutil.copy(saved / file, snapshot))

    def rest(repo, *, revision, allow_patterns):
        asked.append((repo, tuple(allow_patterns), revision))
        for name in set(allow_patterns) & {path.name for path in saved.iterdir()}:
            shutil.copy(saved / name, snapshot)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", config)
    monkeypatch.setattr("huggingface_hub.snapshot_download", rest)
    fetched_files.cache_clear()
    return asked


def test_a_name_on_the_hub_is_fetched_without_pickles(hub, folder, capsys):
    assert main(["score", str(folder), "--features", "hub:some/clip@main", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["scores"]
    assert all(row["features"].startswith("hub:some/clip ") for row in found)
    (_, first, revision), (_, files, commit) = hub
    assert (first, revision, commit) == ("config.json", "main", "0a1b")
    assert "model.safetensors" in files and not any("*" in name or name.endswith(".bin") for name in files)


def test_what_is_no_clip_is_not_fetched(hub, saved, monkeypatch, tmp_path):
    change(tmp_path / "config.json", model_type="bert")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **how: str(tmp_path / "config.json"))
    with pytest.raises(UserError, match="is no CLIP"):
        fetched("hub:some/bert")
    assert hub == []


def test_what_cannot_be_fetched_is_told_in_one_line(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", Mock(side_effect=OSError("no network\nlong story")))
    with pytest.raises(UserError, match=r"^hub:some/clip cannot be fetched \(no network\): [^\n]+$"):
        fetched("hub:some/clip")
