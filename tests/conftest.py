import signal

import pytest
import tiny
import tiny_flow
import torch

torch.set_num_threads(1)  # the same bits whatever the machine, and no quarrel with what else runs on it
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite started in the background ignores Ctrl-C, which is tested here


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory):
    """Twelve little squares of one colour, with captions, in two class folders."""
    return tiny.pictures(tmp_path_factory.mktemp("data") / "squares")


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A folder with the parts a flow takes over: a tiny codec and a tiny sentence encoder."""
    folder = tmp_path_factory.mktemp("base")
    tiny.codec().save_pretrained(folder / "codec")
    tiny.sentence_encoder().save_pretrained(folder / "text")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """The folder of a saved flow: 32 pixels, two styles, random weights."""
    return tiny_flow.save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def other_model(tmp_path_factory):
    """The same with other weights."""
    return tiny_flow.save(tmp_path_factory.mktemp("models") / "other", seed=1)
