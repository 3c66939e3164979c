import dataclasses
import os

import pytest
import tiny
import torch
from data_makers import Listed, disc, greys

from diorama.data import Batches, Item, Joined, Subset, open_data
from diorama.data.encoded import encode, fingerprint, stamps
from diorama.errors import UserError

TEXTS = ["a red square", "", "a round blue thing", "a red square"]


class Counting:
    """A flow's frozen parts; counts how often they are asked."""

    def __init__(self):
        self.flow, self.calls = tiny.flow(), 0

    @torch.no_grad()
    def __call__(self, batch):
        self.calls += 1
        return self.flow.encode(batch)


def source(n=10):
    colours = [(20 * i % 256, 50, 200) for i in range(n)]
    return Listed([Item(f"k{i}", disc(colours[i], 16, (2, 2, 13, 13)), TEXTS[i % 4], tiny.STYLES[i % 2]) for i in range(n)])


@pytest.mark.parametrize("place", [(0, 0, 1), (3, 0, 1), (2, 1, 2)])
def test_it_is_what_the_encoder_sees_at_that_step(place):
    encoder = Counting()
    encoded = encode(source(), 16, encoder, batch=4, seed=3)(*place)
    expected = encoder(Batches(source(), 16, 4, 3)(*place))
    assert len(encoded) == 4
    assert torch.equal(encoded.label, expected.label)
    assert torch.allclose(encoded.latent, expected.latent, rtol=1e-2, atol=1e-2)  # float16
    assert torch.equal(encoded.embedding.mask, expected.embedding.mask)
    assert torch.allclose(encoded.embedding.tokens, expected.embedding.tokens, rtol=1e-2, atol=1e-2)
    assert torch.allclose(encoded.embedding.pooled, expected.embedding.pooled, atol=1e-2)


def test_each_sentence_is_kept_once():
    assert len(encode(source(), 16, Counting(), batch=4, seed=0).pooled) == 3


def test_a_set_without_a_single_caption(tmp_path):
    bare = Listed([dataclasses.replace(item, text="") for item in source(3).items])
    embedding = encode(bare, 16, Counting(), batch=2, seed=0, cache=tmp_path / "c")(0).embedding
    assert embedding.mask.shape == (2, 1)
    assert not any(part.any() for part in embedding)


def test_the_cache_is_read_while_its_key_is_the_same(tmp_path):
    encoder, kept = Counting(), {"batch": 4, "seed": 3, "cache": tmp_path / "cache.safetensors"}
    first = encode(source(), 16, encoder, key="a", **kept)
    again = encode(source(), 16, encoder, key="a", **kept)
    assert encoder.calls == 1
    assert torch.equal(again.latent, first.latent)
    assert again.latent.dtype == torch.float16
    assert torch.equal(again(5).embedding.tokens, first(5).embedding.tokens)
    encode(source(), 16, encoder, key="b", **kept)
    assert encoder.calls == 2


def test_a_damaged_cache_is_made_again(tmp_path):
    encoder, cache = Counting(), tmp_path / "cache.safetensors"
    for _ in range(2):
        encode(source(), 16, encoder, batch=4, seed=3, cache=cache, key="a")
        cache.write_bytes(cache.read_bytes()[:-9])
    assert encoder.calls == 2


def test_what_cannot_be_read_is_named_from_the_cache_too(tmp_path):
    for _ in range(2):
        encoded = encode(greys(12, broken=(3, 7)), 16, Counting(), batch=4, seed=0, cache=tmp_path / "c", key="a")
        assert encoded.skipped == {"k3": "cut short", "k7": "cut short"}
        assert len(encoded) == 12


def test_nothing_to_encode_is_a_mistake():
    with pytest.raises(UserError, match="no items"):
        encode(Listed([]), 16, Counting(), batch=4, seed=0)


def test_progress_is_told():
    steps = []
    encode(source(130), 16, Counting(), batch=4, seed=0, on_step=steps.append)
    assert [(step.index, step.n) for step in steps] == [(0, 3), (1, 3), (2, 3)]


def test_fingerprints_tell_apart():
    assert fingerprint("a", 1) == fingerprint("a", 1)
    assert len({fingerprint("a", 1), fingerprint("a", 2), fingerprint("a1"), fingerprint("a", "1", "")}) == 4


def test_a_replaced_file_is_noticed_by_its_size_or_its_time(tmp_path):
    folder = tiny.pictures(tmp_path / "data", 4)
    source = open_data(folder)
    sources = [source, Subset(source, [0]), Joined([Listed([]), source])]
    first = [stamps(one) for one in sources]
    assert first == [stamps(open_data(folder))] * 3 == [stamps(source)] * 3
    picture = next(folder.rglob("*.png"))
    state = picture.stat()
    os.utime(picture, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    later = [stamps(one) for one in sources]
    picture.write_bytes(picture.read_bytes() + b"!")
    os.utime(picture, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    larger = [stamps(one) for one in sources]
    picture.unlink()
    assert all(len({*states, stamps(source)}) == 4 for states in zip(first, later, larger, strict=True))
    assert stamps(Listed([])) == stamps(greys(3))  # nothing that is a file


def test_fresh_or_read_back_the_latents_lie_alike_in_memory(tmp_path):
    """Kernels round by layout, and a run must resume to the bit."""
    encoder = Counting()

    def channels_last(batch):
        seen = encoder(batch)
        return dataclasses.replace(seen, latent=seen.latent.contiguous(memory_format=torch.channels_last))

    kept = {"batch": 4, "seed": 3, "cache": tmp_path / "cache.safetensors", "key": "a"}
    fresh, read = (encode(source(), 16, channels_last, **kept)(0).latent for _ in range(2))
    assert fresh.stride() == read.stride()
