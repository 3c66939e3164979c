"""`diorama data recaption` from the command line."""

import json

import pytest
import tiny
import torch

from diorama.apps.cli import main
from diorama.conditions.caption import CaptionEncoder
from diorama.conditions.writer import Writer, WriterConfig
from diorama.data import open_data
from diorama.data.curate import tensor
from diorama.networks.vit import ViT, ViTConfig
from diorama.systems.understanding.captioner import Captioner
from diorama.types import Noise


@pytest.fixture(scope="module")
def captioner():
    torch.manual_seed(0)
    words = WriterConfig(words=300, width=16, depth=1, heads=2, max_tokens=5, read=16, forms=2)
    tower = ViT(ViTConfig(size=16, patch=8, width=16, depth=1, heads=2))
    return tiny.randomised(Captioner(tower, Writer(words, CaptionEncoder.of(["a red square"] * 4).tokenizer))).eval()


def test_the_captions_are_the_captioner_s_but_for_a_few(captioner, picture_folder, tmp_path, capsys):
    folder = tmp_path / "saved"
    captioner.save_pretrained(folder)
    command = ["data", "recaption", str(picture_folder), "--captioner", str(folder), "-o", str(tmp_path / "out")]
    assert main([*command, "--blend", "0.6", "--seed", "2"]) == 0
    source = open_data(picture_folder)
    image = tensor([source.read(i).image for i in range(len(source))], 16)
    long, short = (captioner.caption(image, form, noise=Noise(range(12))) for form in ("descriptive", "short"))
    lines = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    assert [line["short"] for line in lines] == short
    assert [line["original"] for line in lines] == [source.record(i)["text"] for i in range(12)]
    new = [line["text"] == words for line, words in zip(lines, long, strict=True)]
    assert all(line["text"] == line["original"] for line, is_new in zip(lines, new, strict=True) if not is_new)
    assert 0 < sum(new) < 12
    assert f"{sum(new)}  of 12 captions in {tmp_path / 'out'} are new" in capsys.readouterr().out
    assert main(command) == 2
    assert "is there already: name a new folder" in capsys.readouterr().err


def test_mistakes_are_one_line(picture_folder, tiny_model, tmp_path, capsys):
    def fails(*arguments):
        assert main(["data", "recaption", *map(str, arguments)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1
        return err

    assert "writes no captions: give a saved captioner" in fails(
        picture_folder, "--captioner", tiny_model, "-o", tmp_path / "out"
    )
    assert "model 'nobody' is not known" in fails(picture_folder, "--captioner", "nobody", "-o", tmp_path / "out")
    assert "whose pictures are read" in fails(picture_folder, "--captioner", tiny_model, "-o", picture_folder / "new")
