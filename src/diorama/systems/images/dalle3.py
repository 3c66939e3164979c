"""DALL-E 3: a painter that learned from captions a machine wrote, and short prompts made as long as those before it paints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from diorama import cards
from diorama.codecs.conv import ConvCodec
from diorama.codecs.patches import PatchCodec, PatchCodecConfig
from diorama.conditions.caption import CaptionConfig, CaptionEncoder
from diorama.conditions.writer import Writer, WriterConfig
from diorama.errors import UserError
from diorama.networks.unet import UNetConfig
from diorama.systems.base import TakePart
from diorama.systems.images import flow
from diorama.systems.images.flow import Flow
from diorama.systems.understanding.captioner import told, written
from diorama.training.loop import Phase
from diorama.types import Batch, Condition, Noise

INSTRUCTION = """You are given a short description of a picture. Write the caption of such a picture, in one paragraph of at most 80 words.
Keep all that was asked for: every thing, number, colour, place and style. Add what was left open: what things look like, where they
stand, what is behind them, the light, the medium. Add no text in the picture, name no artist. Answer with the caption alone."""

PRESETS = {  # the painter, the words it reads, and the language model that makes prompts long
    "nano": (
        UNetConfig(channels=64, widths=(96, 96), depth=1, attention=(True, True), embedding=192),
        CaptionConfig(),
        WriterConfig(width=96),
    ),
    "mini": (
        flow.PRESETS["mini"],
        CaptionConfig(width=256, depth=4, max_tokens=96),
        WriterConfig(width=160, depth=4, heads=5, max_tokens=96),
    ),
    # The paper publishes no size. Its appendix names what its models are made of: a U-Net of three stages in latents of f = 8 that
    # reads T5-XXL. So this has three stages of Latent Diffusion's widths, a text tower as wide and deep as T5-XXL's encoder, and a
    # writer of GPT-2's size, where the paper asks GPT-4. No published number holds it
    "paper": (
        UNetConfig(channels=4, widths=(320, 640, 1280), attention=(True, True, True), heads=8, embedding=1280, transformer=True),
        CaptionConfig(words=32128, width=4096, depth=24, heads=64, max_tokens=256),
        WriterConfig(words=50257, width=768, depth=12, heads=12, max_tokens=256),
    ),
}


@dataclass(eq=False, kw_only=True)
class Dalle3(Flow):
    """Any text-to-image model, of which only the data is new (Betker et al. 2023): 95 % of its captions are descriptive and synthetic.

    `Captioner` writes them and `data.recaption` blends them in. Beside the painter stands a language model that learns from the
    same data how a caption in few words goes on; neither knows of the other.
    """

    reader: CaptionEncoder
    writer: Writer

    card: ClassVar[cards.Card] = cards.DALLE3
    learns_form: ClassVar[str | None] = "long"
    dropped: ClassVar[dict[str, float]] = {"text": 0.1}

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> Dalle3:
        cls.card.check_preset(preset)
        shape, words, writing = PRESETS[preset]
        pieces = part("text", CaptionEncoder).tokenizer
        codec = PatchCodec(PatchCodecConfig(patch=4, mean=0.3, std=0.6)) if preset == "nano" else part("codec", ConvCodec)
        painter = Flow.on(codec, CaptionEncoder(words, pieces), shape, (), size)  # words say all, styles too
        reader = CaptionEncoder(CaptionConfig(words=writing.words, width=writing.width), pieces)
        writer = Writer(replace(writing, read=writing.width), pieces)
        return cls(painter.codec, painter.text, painter.network, (), size, reader=reader, writer=writer)

    # --- training: the painter, and beside it what makes prompts long; neither knows of the other -----

    def phases(self) -> Sequence[Phase]:
        painter, upsampler = (
            [p for part in parts for p in part.parameters()] for parts in ((self.text, self.network), (self.reader, self.writer))
        )
        return [Phase("painter", painter, self.loss), Phase("upsampler", upsampler, self.upsampler_loss)]

    def upsampler_loss(self, batch: Batch, noise: Noise) -> Tensor:
        """Nats per piece of each caption, of what it is in few words: (b,). Where the data says no such words, of nothing."""
        short = batch.short or [""] * len(batch.text)
        return told(self.writer, batch.text, Condition(text=self.reader(short)), noise)

    # --- use ------------------------------------------------------------------------------------------

    @property
    def prompt_upsampler(self) -> PromptUpsampler:
        """Its own language model: `model.sample(model.prompt_upsampler(prompts, noise), noise=noise)`."""
        return PromptUpsampler.of(self.reader, self.writer)


Write = Callable[[Sequence[str], Noise], Sequence[str]]  # short prompts -> long ones, one for each


@dataclass(frozen=True)
class PromptUpsampler:
    """Prompts as long as the captions a painter learned from (Betker et al. 2023, sec. 3.5), by whatever writes them."""

    write: Write

    @classmethod
    def of(cls, reader: CaptionEncoder, writer: Writer, temperature: float = 0.5) -> PromptUpsampler:
        """By a small language model. The temperature is low: a word told wrong costs more than variety gives."""

        @torch.no_grad()
        def write(prompts: Sequence[str], noise: Noise) -> Sequence[str]:
            return written(writer, Condition(text=reader(prompts)), temperature, noise)

        return cls(write)

    @classmethod
    def by_chat(cls, client: Any, model: str, instruction: str = INSTRUCTION) -> PromptUpsampler:
        """By a chat model, asked through a client of OpenAI's kind: one that has `chat.completions.create`."""

        def one(prompt: str) -> str:
            messages = [{"role": "system", "content": instruction}, {"role": "user", "content": prompt}]
            answer = client.chat.completions.create(model=model, messages=messages)
            return str(answer.choices[0].message.content or "")

        return cls(lambda prompts, noise: [one(prompt) if prompt.strip() else "" for prompt in prompts])

    def __call__(self, prompts: Sequence[str], noise: Noise) -> list[str]:
        """A long prompt for each, on one line. A prompt that asks for nothing stays, as does one to which nothing was answered."""
        long = self.write(prompts, noise)
        if len(long) != len(prompts):
            raise UserError(f"{len(long)} long prompts came back for {len(prompts)}: the upsampler must write one for each")
        return [_line(words) or prompt if prompt.strip() else prompt for prompt, words in zip(prompts, long, strict=True)]


def _line(words: str) -> str:
    return " ".join("".join(c for c in words if c.isprintable() or c.isspace()).split())
