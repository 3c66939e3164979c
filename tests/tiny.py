"""Everything in miniature: parts with random weights that build in milliseconds, a toy to train, a folder of pictures."""

import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn

from diorama.codecs.conv import ConvCodec, ConvCodecConfig
from diorama.codecs.quantise import VectorQuantiser
from diorama.conditions.caption import CaptionEncoder
from diorama.conditions.text import SentenceConfig, SentenceEncoder, TextTower
from diorama.networks.unet import UNet, UNetConfig
from diorama.parts import Part
from diorama.systems.images.flow import Flow
from diorama.systems.images.latent import LatentPainter
from diorama.training.loop import Phase
from diorama.types import Batch, Noise

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220), "white": (255, 255, 255)}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "round", "square", "thing", *COLOURS]
STYLES = ("flat", "solid")
ENLARGING = UNetConfig(
    channels=4,
    given=4,
    augmented=True,
    patch=2,
    widths=(16,),
    depth=1,
    attention=(False,),
    bottom=False,
    embedding=16,
    levels=100.0,
)


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every weight random, those that start at zero too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", WORDS.index("[CLS]")), ("[SEP]", WORDS.index("[SEP]"))]
    )
    return made


def sentence_encoder() -> SentenceEncoder:
    config = SentenceConfig(words=len(WORDS), positions=16, width=16, depth=1, heads=2, hidden=32, max_tokens=12)
    return randomised(SentenceEncoder(config, tokenizer()))


def codec() -> ConvCodec:
    """4 pixels along each side become one latent position of 4 channels."""
    torch.manual_seed(0)
    return randomised(ConvCodec(ConvCodecConfig(latent=4, patch=2, widths=(8, 16), decoder_depth=1)))


UNET = UNetConfig(channels=4, widths=(16, 32), depth=1, attention=(False, True), heads=2, text_width=16, labels=2, embedding=24)


def unet(**changes) -> UNet:
    return randomised(UNet(UNetConfig(**{**UNET.__dict__, **changes})))


def flow() -> Flow:
    return Flow(codec(), sentence_encoder(), unet(), STYLES, 16)


class Toy(nn.Module):
    """Denoises three numbers: its data, its noise and its dropout all show in its weights."""

    def __init__(self, dropout: float = 0.2, fail: tuple[int, ...] = ()):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Dropout(dropout), nn.Linear(16, 3))
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.calls, self.fail = 0, fail

    def loss(self, batch: Batch, noise: Noise) -> torch.Tensor:
        loss = (self.net(batch.image + noise.normal(3)) - batch.image).square().mean(1)
        self.calls += self.training
        return loss * torch.nan if self.calls - 1 in self.fail and self.training else loss

    def phases(self):
        return [Phase("loss", list(self.net.parameters()), self.loss)]

    def after_backward(self, step, optimizers):
        pass

    def forward(self, phase, batch, noise):
        return self.phases()[phase].loss(batch, noise)


class ToyBatches:
    """n samples a step, each a function of its position alone."""

    def __init__(self, n: int = 4):
        self.n = n

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        return Batch(Noise.at(99, step, rank, world, n=self.n).normal(3) * 0.3 + torch.tensor([1.0, -1.0, 2.0]))


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in module.state_dict().values()])


def pictures(folder, n: int = 12, side: int = 16):
    """n squares of one colour with captions, in two class folders."""
    for i in range(n):
        colour = list(COLOURS)[i % len(COLOURS)]
        place = folder / STYLES[i % 2] / f"{i:02d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGBA", (side, side), (255, 255, 255, 0))
        image.paste((*COLOURS[colour], 255), (2, 2, side - 2, side - 2))
        image.save(place)
        place.with_suffix(".txt").write_text(f"a {colour} square")
    return folder


def part(name: str, kind: type) -> Part:
    """Frozen parts for systems of any preset to stand on: untrained, and of the size their class has by itself."""
    if kind is LatentPainter:
        return Flow.new(preset="nano", size=64, labels=(), part=part)
    if issubclass(kind, CaptionEncoder) or kind is TextTower:
        return CaptionEncoder.of(["a red circle"])
    if issubclass(kind, SentenceEncoder):
        return kind(SentenceConfig(words=8), Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    return kind(kind.Config(**({"width": ConvCodecConfig().latent} if kind is VectorQuantiser else {})))
