"""N networks and M processes are N + M pieces of code: any process trains any network in the latents of any codec."""

from dataclasses import replace

import pytest
import tiny
import torch

from diorama.codecs.conv import ConvCodec, ConvCodecConfig
from diorama.codecs.patches import PatchCodec, PatchCodecConfig
from diorama.codecs.quantise import QuantisedCodec, VectorQuantiser, VectorQuantiserConfig
from diorama.networks.tokens import TokenTransformer, TokenTransformerConfig
from diorama.networks.unet import UNet
from diorama.processes.diffusion import Diffusion
from diorama.processes.levels import LogNormal, cosine, linear_abar
from diorama.processes.masked import MaskedParallel
from diorama.processes.scalings import EDM, X0, Epsilon, NetworkDenoiser, V
from diorama.types import Condition, Noise, TextEmbedding

N = 2


def conv(axes=2, **changes):
    torch.manual_seed(0)
    return ConvCodec(ConvCodecConfig(channels=4, latent=4, patch=1, widths=(8, 8), decoder_depth=1, axes=axes, **changes))


def quantised(axes=2):
    return QuantisedCodec(conv(axes, variational=False), VectorQuantiser(VectorQuantiserConfig(codes=16, width=4)))


CODECS = {
    "pixels": lambda axes: PatchCodec(PatchCodecConfig(patch=1, axes=axes)),
    "patches": lambda axes: PatchCodec(PatchCodecConfig(patch=2, axes=axes)),
    "conv": conv,
    "movq": lambda axes: conv(axes, attention=True, spatial=True),
    "quantised": quantised,
}
SHAPE = replace(tiny.UNET, widths=(8, 16), embedding=16)
NETWORKS = {
    "ours": SHAPE,
    "ddpm": replace(SHAPE, scales=False, resample="keeping", closing=True),
    "adm": replace(SHAPE, resample="block", closing=True, head_width=8),
    "ldm": replace(SHAPE, transformer=True),
    "kandinsky3": replace(SHAPE, bottleneck=True, reads=16),
}
PROCESSES = {
    "flow": Diffusion(),
    "edm": Diffusion(EDM(), LogNormal(), 80.0),
    "x0": Diffusion(X0(), LogNormal(), 80.0),
    "epsilon": Diffusion.of_table(Epsilon, linear_abar()),
    "v": Diffusion.of_table(V, cosine(most=0.99)),
}


def data(axes):
    return Noise(range(N)).uniform(4, *[8] * axes) * 2 - 1


def asked():
    noise = Noise(range(10, 10 + N))
    return Condition(TextEmbedding(noise.normal(2, 16), torch.ones(N, 2).bool(), noise.normal(16) / 4), label=torch.arange(N) % 2)


def learns(network, loss):
    """One step downhill, so short that a straight slope would lose a thousandth."""
    values = loss()
    assert values.shape == (N,)
    before = values.mean()
    before.backward()
    learning = [p for p in network.parameters() if p.grad is not None]
    rate = 0.001 * before.item() / sum(p.grad.square().sum().item() for p in learning)
    with torch.no_grad():
        for p in learning:
            p -= rate * p.grad
        assert loss().mean() < before


def diffuses(process, shape, codec, axes=2):
    with torch.no_grad():
        z = codec.encode(data(axes))
    torch.manual_seed(0)
    network = UNet(replace(shape, channels=z.shape[1], axes=axes))
    denoiser = NetworkDenoiser(network, process.scaling)
    learns(network, lambda: process.loss(denoiser, z, asked(), Noise(range(N))))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("process", PROCESSES)
def test_any_process_any_network_any_codec(process, network, codec):
    diffuses(PROCESSES[process], NETWORKS[network], CODECS[codec](2))


@pytest.mark.parametrize("axes", [1, 3], ids=["sound", "clip"])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("network", NETWORKS)
def test_along_any_number_of_axes(network, codec, axes):
    diffuses(PROCESSES["flow"], NETWORKS[network], CODECS[codec](axes), axes)


@pytest.mark.parametrize("axes", [1, 2, 3], ids=["sound", "picture", "clip"])
def test_the_masked_process_tells_tokens_of_a_quantised_codec(axes):
    tokenizer, process = quantised(axes), MaskedParallel()
    tokens = tokenizer.tokenise(data(axes))
    torch.manual_seed(0)
    network = TokenTransformer(
        TokenTransformerConfig(codes=16, places=tuple(tokens.shape[1:]), width=16, depth=1, heads=2, text_width=16, labels=2)
    )
    learns(network, lambda: process.loss(network, tokens, asked(), Noise(range(N))))
