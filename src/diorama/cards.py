"""What is in the house, as plain data: read by the command line before torch is imported."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from diorama.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a system is, in one place. `place` says where its class lives; the rest is for people."""

    slug: str
    title: str
    paper: str  # authors, title, venue, where to read it
    year: int
    family: str  # images, editing, video, scenes, understanding, other
    verb: str  # what it does for a person: sample, edit, segment ...
    summary: str
    claim: str  # the paper's own point, as a sentence that can turn out false
    parts: Mapping[str, str]  # field: what stands there
    presets: Mapping[str, int] = field(default_factory=dict)  # name: trained parameters; a test builds each and counts
    published: Mapping[str, int] = field(default_factory=dict)  # of the paper's own: parameters, those frozen, size, batch, steps
    notes: tuple[str, ...] = ()  # where it is not the paper's
    place: str = ""  # "package.module:Class"; none of a study, which only has a claim
    ours: bool = False

    def check_preset(self, name: str) -> None:
        """Raises UserError where there is no such preset."""
        if name not in self.presets:
            raise UserError(f"preset {name!r} is not known: use {', '.join(self.presets)}")

    def compared(self, preset: str) -> str:
        """What the paper says where a preset is its own, "35.7 M in the paper"; else nothing."""
        if preset != "paper" or "parameters" not in self.published:
            return ""
        said = f"{self.published['parameters'] / 1e6:,.4g} M in the paper"
        return f"{said}, {self.published['frozen'] / 1e6:,.4g} M of them frozen" if "frozen" in self.published else said

    def to_dict(self) -> dict[str, Any]:
        return {k: dict(v) if isinstance(v, Mapping) else v for k, v in asdict(self).items()}


AUTOENCODER = Card(
    slug="autoencoder",
    title="Convolutional picture codec",
    paper="after Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014 (arXiv 1312.6114)",
    year=2014,
    family="images",
    verb="reconstruct",
    summary="RGBA pictures to latents two to sixteen times smaller along each side, and back.",
    claim="none of its own: its reconstruction quality stands on the model card of what is built on it",
    parts={"codec": "ConvCodec"},
    presets={"mini": 3_154_848, "f2": 144_600, "f4": 431_040, "f8": 798_672, "f16": 967_296},
    place="diorama.systems.images.autoencoder:Autoencoder",
    ours=True,
)

VQ = Card(
    slug="vq",
    title="Picture tokenizer",
    paper="after van den Oord et al., Neural Discrete Representation Learning, NeurIPS 2017 (arXiv 1711.00937)",
    year=2017,
    family="images",
    verb="tokenise",
    summary="RGBA pictures to a few words of a codebook, and back.",
    claim="none of its own: its reconstruction quality and the use of its codes stand on the model card of what is built on it",
    parts={"codec": "ConvCodec, without a variance", "quantiser": "VectorQuantiser"},
    presets={"mini": 426_424, "movq": 1_902_932, "movq-paper": 269_352_968},
    place="diorama.systems.images.vq:VectorQuantised",
    ours=True,
)

MASKED_TOKENS = Card(
    slug="masked-tokens",
    title="Masked-token text-to-image",
    paper="after Chang et al. 2022, MaskGIT (arXiv 2202.04200), and Chang et al. 2023, Muse (arXiv 2301.00704)",
    year=2022,
    family="images",
    verb="sample",
    summary="A sentence and a label to an RGBA picture, by telling the tokens of a frozen codec in parallel, the surest first.",
    claim="none of its own: its measured quality stands on its model card",
    parts={
        "codec": "ConvCodec, frozen",
        "quantiser": "VectorQuantiser, frozen",
        "text": "CaptionEncoder",
        "network": "TokenTransformer",
        "process": "MaskedParallel",
    },
    presets={"nano": 1_148_640, "mini": 2_739_936},
    place="diorama.systems.images.masked_tokens:MaskedTokens",
    ours=True,
)

FLOW = Card(
    slug="flow",
    title="Rectified-flow text-to-image",
    paper="after Liu et al. 2022 (arXiv 2209.03003), Lipman et al. 2022 (arXiv 2210.02747), Esser et al. 2024 (arXiv 2403.03206)",
    year=2024,
    family="images",
    verb="sample",
    summary="A sentence and a style to an RGBA picture, by a flow in the latents of a frozen codec; the default model.",
    claim="none of its own: its measured quality stands on the default model's card",
    parts={
        "codec": "ConvCodec, frozen",
        "text": "SentenceEncoder, frozen; CaptionEncoder in nano",
        "network": "UNet",
        "process": "Diffusion(RectifiedFlow)",
    },
    presets={"nano": 4_914_560, "mini": 7_832_080, "base": 48_139_536},
    place="diorama.systems.images.flow:Flow",
    ours=True,
)


CLIP = Card(
    slug="clip",
    title="CLIP",
    paper="Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021 (arXiv 2103.00020)",
    year=2021,
    family="understanding",
    verb="score",
    summary="Pictures and sentences in one space: how well a sentence fits a picture, and which of many fits best.",
    claim="telling which sentence goes with a picture teaches more per FLOP than predicting the sentence's words",
    parts={
        "image": "ImageTower",
        "text": "SentenceEncoder, frozen; CaptionEncoder in nano",
        "heads": "Heads",
        "style": "StyleTower",
    },
    presets={"nano": 1_337_478, "noisy": 1_428_294, "mini": 1_764_822},
    place="diorama.systems.understanding.clip:Clip",
)


CLASSIFIER = Card(
    slug="classifier",
    title="Label classifier",
    paper="after Dhariwal & Nichol, Diffusion Models Beat GANs on Image Synthesis, NeurIPS 2021 (arXiv 2105.05233), sec. 4",
    year=2021,
    family="understanding",
    verb="classify",
    summary="A picture or a clip, noisy or not, to one of a few labels, and to features in which distances are taken.",
    claim="none of its own: its accuracy stands on the model card of what is judged or guided by it",
    parts={"network": "ClassifierNetwork"},
    presets={"mini": 485_157, "noisy": 575_973, "clip": 826_109},
    place="diorama.systems.understanding.classifier:Classifier",
    ours=True,
)

SAM = Card(
    slug="sam",
    title="Segment Anything",
    paper="Kirillov et al., Segment Anything, ICCV 2023 (arXiv 2304.02643)",
    year=2023,
    family="understanding",
    verb="segment",
    summary="A picture and a point, a box or a rough mask to masks of what may be meant, each with how well it should fit.",
    claim="where one click can mean several things, three masks of which only the best learns find more of them than one mask does",
    parts={"encoder": "ViT", "neck": "Neck", "prompts": "PromptEncoder", "decoder": "MaskDecoder"},
    presets={"nano": 420_872, "mini": 1_467_336, "paper": 635_975_728},
    published={
        "parameters": 636_000_000,
        "size": 1024,
        "batch": 256,
        "steps": 90_000,
    },  # segment-anything.com: 632 M + 4 M; app. A
    place="diorama.systems.understanding.sam:Sam",
)

MAE = Card(
    slug="mae",
    title="Masked autoencoder",
    paper="He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022 (arXiv 2111.06377)",
    year=2022,
    family="understanding",
    verb="encode",
    summary="A picture to one token per patch, by an encoder that no label taught: it paints what it did not see.",
    claim="hiding three quarters of the patches teaches features that a linear reader understands better than hiding a quarter does",
    parts={"encoder": "ViT", "decoder": "Painter"},
    presets={"nano": 265_760, "mini": 1_356_848},
    place="diorama.systems.understanding.mae:MaskedAutoencoder",
)

DDPM = Card(
    slug="ddpm",
    title="DDPM",
    paper="Ho, Jain & Abbeel, Denoising Diffusion Probabilistic Models, NeurIPS 2020 (arXiv 2006.11239)",
    year=2020,
    family="images",
    verb="sample",
    summary="Noise to a picture, a little less noise at each of a thousand steps, by a network that learned to tell the noise.",
    claim="weighing every level alike in the loss gives better pictures than the variational bound does, which stays the better bound",
    parts={"network": "UNet", "process": "Diffusion(Epsilon over a table, ancestral)"},
    presets={"nano": 832_428, "mini": 10_734_531, "paper": 35_746_307},
    published={"parameters": 35_700_000, "size": 32, "batch": 128, "steps": 800_000},  # app. B, CIFAR-10
    place="diorama.systems.images.ddpm:DDPM",
)

LDM = Card(
    slug="ldm",
    title="Latent Diffusion",
    paper="Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, CVPR 2022 (arXiv 2112.10752)",
    year=2022,
    family="images",
    verb="sample",
    summary="A sentence and a style to an RGBA picture, by a diffusion in the latents of a frozen codec that reads through cross-attention.",
    claim="diffusion in the latents of a mildly compressing codec beats diffusion of pixels at equal cost, and too much compression loses",
    parts={
        "codec": "ConvCodec, frozen",
        "text": "CaptionEncoder",
        "network": "UNet with cross-attention",
        "process": "Diffusion(Epsilon over a table)",
    },
    presets={"nano": 2_513_072, "mini": 14_499_216, "paper": 1_416_790_608},
    published={"parameters": 1_450_000_000, "size": 256, "batch": 680, "steps": 390_000},  # table 15, text-to-image
    notes=(
        "in its claim pixels and latents are compared without words and by a rectified flow, which takes fewer steps to learn",
    ),
    place="diorama.systems.images.ldm:LatentDiffusion",
)

GUIDED_DIFFUSION = Card(
    slug="guided-diffusion",
    title="Guided Diffusion",
    paper="Dhariwal & Nichol, Diffusion Models Beat GANs on Image Synthesis, NeurIPS 2021 (arXiv 2105.05233)",
    year=2021,
    family="images",
    verb="sample",
    summary="A class to a picture, by a pixel diffusion that a classifier of noisy pictures steers.",
    claim="the gradient of a classifier trained on noise trades diversity for fidelity, and one trained on clean pictures does not",
    parts={"network": "UNet", "process": "Diffusion(X0)", "guidance": "classifier or classifier_free"},
    presets={"nano": 3_927_472, "mini": 10_736_067, "paper": 552_682_243},
    published={"parameters": 554_000_000, "size": 256, "batch": 256, "steps": 1_980_000},  # tables 4 and 11, ImageNet at 256 px
    notes=(
        "the variance is not learned; the clean picture is told, on log-normal levels (Karras et al. 2022), and walked without fresh noise",
        "one network, half of whose training sees no class, is both of the paper's models",
        "the classifier takes the most of each feature over all places, where the paper's pools by attention; there are no upsamplers",
    ),
    place="diorama.systems.images.guided_diffusion:GuidedDiffusion",
)


IMAGEN = Card(
    slug="imagen",
    title="Imagen",
    paper="Saharia et al., Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding, NeurIPS 2022 (arXiv 2205.11487)",
    year=2022,
    family="images",
    verb="sample",
    summary="A sentence to a small picture of pixels and twice to a larger one; words are read by a frozen encoder that never saw a picture.",
    claim="dynamic thresholds keep strong guidance from burning pictures out, and stages that learned on noised pictures mend what they follow",
    parts={
        "text": "SentenceEncoder, frozen",
        "base": "UNet with attention over the words",
        "middle": "UNet that follows a noised smaller picture",
        "top": "UNet that follows one, and attends to words alone",
        "process": "Cascade of Diffusion(Epsilon over a table)",
        "guidance": "classifier_free, then dynamic thresholds",
    },
    presets={"nano": 3_662_868, "mini": 19_702_516, "paper": 3_040_482_313},
    # sec. 4.1: 2 B, 600 M and 400 M, the three stages without their text encoder
    published={"parameters": 3_000_000_000, "size": 1024, "batch": 2048, "steps": 2_500_000},
    notes=(
        "that a larger text encoder helps more is not put to the test: none here has read as much as T5. The claim is of the cascade alone",
        "beside a block that keeps its width there is no convolution, and every block is told the level",
    ),
    place="diorama.systems.images.imagen:Imagen",
)


UPSAMPLER = Card(
    slug="upsampler",
    title="Upsampler",
    paper="after Saharia et al., Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding (arXiv 2205.11487), sec. 2.4",
    year=2022,
    family="images",
    verb="enlarge",
    summary="An RGBA picture to one of twice its size, by a diffusion of the detail that enlarging leaves out.",
    claim="none of its own: how near it comes to the truth, beside plain enlarging, stands on its model card",
    parts={"network": "UNet, without attention", "process": "Diffusion(X0)"},
    presets={"nano": 587_024, "mini": 1_351_696},
    place="diorama.systems.images.upsampler:Upsampler",
    ours=True,
)


FOODFUSION = Card(
    slug="foodfusion",
    title="FoodFusion",
    paper="Markham et al., FoodFusion: A Latent Diffusion Model for Realistic Food Image Generation, 2023 (arXiv 2312.03540)",
    year=2023,
    family="images",
    verb="sample",
    summary="A trained text-to-image model carried on with pictures that were compiled for it, cleaned by retrieval and by masks.",
    claim="of as many pictures and steps, those cleaned by retrieval and by masks bring it nearer to real pictures and to its captions",
    parts={
        "codec": "ConvCodec, frozen",
        "text": "SentenceEncoder, frozen",
        "network": "UNet, carried on, of the size of the model it begins from",
        "process": "Diffusion(RectifiedFlow)",
    },
    notes=(
        "it carries on a rectified flow, where the paper carries on Stable Diffusion, and gives no size of its own",
        "masks clean by whether what they show has the colours and the number that the caption says; no model names each mask",
    ),
    place="diorama.systems.images.foodfusion:FoodFusion",
)

GLIDE = Card(
    slug="glide",
    title="GLIDE",
    paper="Nichol et al., GLIDE: Towards Photorealistic Image Generation and Editing with Text-Guided Diffusion Models (arXiv 2112.10741)",
    year=2022,
    family="images",
    verb="sample",
    summary="A sentence to an RGBA picture, or to what fills a hole in one, by a diffusion of pixels that learns its words with it.",
    claim="guidance without a classifier beats CLIP's gradient, which pleases CLIP alone; a model tuned to see holes fills them better",
    parts={
        "codec": "PatchCodec: the pixels as they are",
        "text": "CaptionEncoder",
        "network": "UNet, words beside the places in attention",
        "process": "Diffusion(Epsilon over a table)",
        "guidance": "classifier_free or contrastive; replaced",
    },
    presets={"nano": 2_215_760, "mini": 6_567_232, "paper": 3_553_360_900},
    published={"parameters": 3_500_000_000, "size": 64, "batch": 2048, "steps": 2_500_000},  # sec. 4, without the upsampler
    notes=(
        "the upsampler to 256 pixels is left out; Imagen's stages do that work here",
        "a fifth of the captions is dropped from the first step on, not in a tuning of its own; an empty one is no word at all, not padding",
        "its claim stands on the shipped flow, of which GLIDE's two guidances and its inpainter are made",
    ),
    place="diorama.systems.images.glide:Glide",
)

UNCLIP = Card(
    slug="unclip",
    title="DALL-E 2",
    paper="Ramesh et al., Hierarchical Text-Conditional Image Generation with CLIP Latents, 2022 (arXiv 2204.06125)",
    year=2022,
    family="images",
    verb="sample",
    summary="A sentence to what a picture may say, a vector in CLIP's space, and that to an RGBA picture; variations too.",
    claim="drawing CLIP's picture vector first is needed, keeps more variety under guidance, and a vector's pictures share what it says alone",
    parts={
        "codec": "PatchCodec: the pixels as they are",
        "image": "ImageTower, frozen",
        "sentence": "CLIP's text tower, frozen",
        "heads": "Heads, frozen",
        "prior": "PriorTransformer, Diffusion(X0); the paper's 24 layers of width 2048 hold 1.2 B, of which its table says 1 B",
        "text": "CaptionEncoder",
        "words": "PictureWords",
        "network": "UNet, words beside the places in attention",
        "process": "Diffusion(Epsilon over a table)",
    },
    presets={"nano": 2_769_936, "mini": 9_691_968, "paper": 4_769_959_108},
    # table 3: 1 B of the prior and 3.5 B of the decoder with its text tower, without the two upsamplers; the rest is the decoder's.
    # The layers it gives for the prior are those of that tower, which Nichol et al. 2022, sec. 4.1, count as roughly 1.2 B
    published={"parameters": 4_500_000_000, "size": 64, "batch": 2048, "steps": 800_000},
    notes=(
        "the two upsamplers and the autoregressive prior are left out",
        "a hole is filled by the words alone, without a vector from the prior",
        "its claim stands on the shipped flow, and CLIP is the shipped one",
    ),
    place="diorama.systems.images.unclip:Unclip",
)


RCG = Card(
    slug="rcg",
    title="RCG",
    paper="Li, Katabi & He, Return of Unconditional Generation: A Self-supervised Representation Generation Method (arXiv 2312.03701)",
    year=2023,
    family="images",
    verb="sample",
    summary="Noise to a vector of what a picture may show, which no label taught, and that to an RGBA picture; variations of pictures.",
    claim="drawing first what a self-supervised encoder sees closes at least half of the gap to pictures asked for by class, without a label",
    parts={
        "codec": "ConvCodec, frozen",
        "quantiser": "VectorQuantiser, frozen",
        "encoder": "ViT, frozen, for example a masked autoencoder's",
        "standard": "Standard: its vectors on one scale",
        "rdm": "VectorMLP, Diffusion(X0)",
        "network": "Mage",
        "process": "MaskedParallel",
        "guidance": "classifier_free_logits",
    },
    presets={"nano": 1_079_168, "mini": 6_877_984, "paper": 468_435_456},
    # table 2, RCG (MAGE-L), of all that generates: 63 M of RDM and MAGE-L's 439 M. In these are the decoder and the codes of its VQGAN
    # (config/mage/vqgan.yaml of the release: 30.5 M and 0.26 M), but neither encoder
    published={"parameters": 502_000_000, "frozen": 30_700_000, "size": 256},
    notes=(
        "the vector is the mean of a masked autoencoder's tokens, on one scale as MoCo v3's head would leave it, for want of that head",
    ),
    place="diorama.systems.images.rcg:Rcg",
)


GAUSSIAN_SPLATTING = Card(
    slug="gaussian-splatting",
    title="3D Gaussian Splatting",
    paper="Kerbl et al., 3D Gaussian Splatting for Real-Time Radiance Field Rendering, SIGGRAPH 2023 (arXiv 2308.04079)",
    year=2023,
    family="scenes",
    verb="render",
    summary="Posed photographs to Gaussians in space, which any camera sees at once; a .ply that splat viewers open.",
    claim="anisotropy and density control each raise the quality of unseen views, and a picture costs a fraction of a voxel field's",
    parts={"cloud": "Cloud: means, scales, turns, opacities, harmonics"},
    place="diorama.systems.scenes.gaussian_splatting:GaussianSplatting",
)


DREAMFUSION = Card(
    slug="dreamfusion",
    title="DreamFusion",
    paper="Poole et al., DreamFusion: Text-to-3D using 2D Diffusion, ICLR 2023 (arXiv 2209.14988)",
    year=2022,
    family="scenes",
    verb="render",
    summary="A sentence to a scene of voxels or Gaussians, by a painter of pictures alone; a .glb or .ply that viewers open.",
    claim="the noise a painter sees, without its own slope, makes scenes that a contrastive score and the full gradient do not",
    parts={
        "scene": "VoxelField or Cloud",
        "painter": "any painter of sentences in latents, frozen and only asked",
        "guidance": "classifier_free, distill",
    },
    published={"size": 64, "batch": 4, "steps": 15_000},  # section 3.2 and appendix A.2; how large its field is, it does not say
    place="diorama.systems.scenes.dreamfusion:DreamFusion",
)


STABLE_DIFFUSION = Card(
    slug="stable-diffusion",
    title="Stable Diffusion checkpoints",
    paper="Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, CVPR 2022 (arXiv 2112.10752)",
    year=2022,
    family="images",
    verb="sample",
    summary="A sentence to a picture, by a checkpoint that is there already: a folder in diffusers' layout, or hub:OWNER/NAME.",
    claim="none of its own: a test holds its pictures to those of diffusers",
    parts={
        "codec": "KLCodec, frozen: AutoencoderKL",
        "text": "ClipText, frozen: CLIPTextModel",
        "network": "DiffusersUNet: UNet2DConditionModel",
        "process": "Diffusion(Epsilon or V over the scheduler's table)",
    },
    place="diorama.systems.images.stable_diffusion:StableDiffusion",
)

DREAMBOOTH = Card(
    slug="dreambooth",
    title="DreamBooth",
    paper="Ruiz et al., DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation, CVPR 2023 (arXiv 2208.12242)",
    year=2023,
    family="images",
    verb="personalise",
    summary="A few pictures of one subject to a model, or an adapter of one, that paints the subject wherever a sentence puts it.",
    claim="beside pictures of its class that the model painted itself, a subject is learned as well, and the class does not turn into it",
    parts={
        "painter": "any painter of sentences in latents, its codec and text tower frozen",
        "adapter": "LoRA, or none: all of its network",
    },
    published={"size": 512, "batch": 2, "steps": 1000},  # sec. 4; it tunes models that are there, and has no size of its own
    place="diorama.systems.images.dreambooth:DreamBooth",
)

KANDINSKY3 = Card(
    slug="kandinsky3",
    title="Kandinsky 3.0",
    paper="Arkhipkin et al., Kandinsky 3.0 Technical Report, 2023 (arXiv 2312.03511)",
    year=2023,
    family="images",
    verb="sample",
    summary="A sentence to an RGBA picture, or to what fills a hole in one, by a deep U-Net of bottlenecks in the latents of a MoVQ.",
    claim="a decoder whose norms take the latent at each place beats one of as many parameters; without a prior more attributes stay bound",
    parts={
        "codec": "ConvCodec, frozen: MoVQ, its latents as they are",
        "text": "SentenceEncoder, frozen",
        "network": "UNet of bottlenecks, which projects the words and pools them by attention",
        "process": "Diffusion(Epsilon over a table)",
        "guidance": "classifier_free, then a dynamic threshold; replaced",
    },
    presets={"nano": 2_098_064, "mini": 9_864_976, "paper": 3_040_087_056},
    published={"parameters": 3_000_000_000, "size": 1024, "steps": 2_000_000},  # of the U-Net; sec. 2 and the release
    notes=(
        "the walk is Euler's, where the original draws anew at every step",
        "groups of a norm have at least 8 channels, time has 128 features and not 192, and no word at all is a zero, not a learned vector",
    ),
    place="diorama.systems.images.kandinsky3:Kandinsky3",
)


VIDEO_LDM = Card(
    slug="video-ldm",
    title="Video LDM",
    paper="Blattmann et al., Align your Latents: High-Resolution Video Synthesis with Latent Diffusion Models, CVPR 2023 (arXiv 2304.08818)",
    year=2023,
    family="video",
    verb="animate",
    summary="A sentence, or a picture as the first frame, to a clip, by a frozen picture model with layers over time between its own.",
    claim="For equal steps, temporal layers in a frozen picture model make clips that stand much nearer to real ones than all of the same "
    "network from scratch; and a decoder that sees neighbouring frames flickers less at the same quality of each.",
    parts={
        "codec": "ConvCodec, frozen",
        "text": "any text tower, frozen",
        "network": "UNet, frozen",
        "temporal": "Temporal, after the network's blocks",
        "decoder": "Temporal, after those of the codec's decoder; a critic of 3-D patches teaches it",
        "process": "the picture model's own",
    },
    presets={"nano": 1_792_231, "mini": 1_792_231, "paper": 250_284_125},
    published={"all its models": 4_100_000_000, "trained on clips": 2_700_000_000, "picture network": 865_910_724, "frames": 16},
    place="diorama.systems.video.video_ldm:VideoLDM",
)


FEW_STEP = Card(
    slug="few-step",
    title="Few-step adapter",
    paper="after Salimans & Ho 2022 (arXiv 2202.00512), Meng et al. 2023 (arXiv 2210.03142), Yan et al. 2024, PeRFlow (arXiv 2405.07510)",
    year=2024,
    family="images",
    verb="distil",
    summary="A painter and sentences to an adapter with which it paints in four evaluations what took it many, guidance folded in.",
    claim="none of its own: what is lost and what is won stands on the card of the adapter that is shipped",
    parts={
        "painter": "any of flow, ldm and what is made of them, all of it frozen",
        "adapter": "LoRA on every layer of its network",
    },
    place="diorama.systems.images.few_step:FewStep",
    ours=True,
)


CAPTIONER = Card(
    slug="captioner",
    title="Captioner",
    paper="after Betker et al., Improving Image Generation with Better Captions, OpenAI 2023, sec. 2",
    year=2023,
    family="understanding",
    verb="caption",
    summary="A picture to a sentence, short or descriptive, by a transformer that looks and a language model that writes.",
    claim="none of its own: how much of what it says is wrong stands in the claim of DALL-E 3",
    parts={"image": "ViT", "writer": "Writer: a causal TokenTransformer and its tokenizer", "process": "Autoregressive"},
    presets={"nano": 959_489, "mini": 3_067_265},
    place="diorama.systems.understanding.captioner:Captioner",
    ours=True,
)

DALLE3 = Card(
    slug="dalle3",
    title="DALL-E 3",
    paper="Betker et al., Improving Image Generation with Better Captions, OpenAI 2023",
    year=2023,
    family="images",
    verb="sample",
    summary="A short prompt to a long one, and that to an RGBA picture, by a painter that learned from captions a captioner wrote.",
    claim="the same painter follows words better where 95 % of its captions are descriptive and synthetic, and best when prompts are as long",
    parts={
        "codec": "ConvCodec, frozen; PatchCodec in nano",
        "text": "CaptionEncoder",
        "network": "UNet",
        "process": "Diffusion(RectifiedFlow)",
        "reader": "CaptionEncoder, of short prompts",
        "writer": "Writer, of long ones",
    },
    presets={"nano": 4_085_377, "mini": 13_527_761, "paper": 5_897_272_930},  # the paper publishes no size
    published={"batch": 2048, "steps": 500_000},  # of the models on which it compares captions
    notes=(
        "the paper publishes no size: `paper` is a U-Net of three stages in latents of f = 8 that reads as wide and deep a tower as T5-XXL",
        "the captioner learns by its captions alone, without CoCa's contrastive loss; the decoder by consistency is left out",
    ),
    place="diorama.systems.images.dalle3:Dalle3",
)


SAMPLERS = Card(
    slug="samplers",
    title="Fast samplers",
    paper="Song et al., Score SDE, DDIM (both ICLR 2021); Lu et al., DPM-Solver++ (arXiv 2211.01095); Karras et al., EDM (NeurIPS 2022)",
    year=2022,
    family="study",
    verb="verify",
    summary="Pure noise to a picture in few evaluations of any denoiser: each solver integrates the same equation.",
    claim="solvers of second order need fewer evaluations than DDIM, DDIM fewer than fresh noise at every step, and the grid of levels matters",
    parts={
        "euler": "DDIM, of first order",
        "heun": "EDM's, of second order, two evaluations a step",
        "dpmpp_2m": "DPM-Solver++, of second order, one evaluation a step",
        "ancestral": "DDPM's, fresh noise at every step",
        "levels": "karras, linear_abar, scaled_linear, cosine, respaced",
    },
    notes=(
        "heun steps in sigma / (1 + sigma), a flow's time, in which it may begin at any level: its paths come near those of the paper's "
        "algorithm 1, which steps in sigma, only where steps are many",
        "left out: DDIM with a share of fresh noise, predictor and corrector, EDM's churn, exact likelihoods",
    ),
)


def catalogue() -> dict[str, Card]:
    """Every system there is, ours and those other packages add through the `diorama.systems` entry point."""
    cards = {
        card.slug: card
        for card in (
            FLOW,
            LDM,
            DDPM,
            GUIDED_DIFFUSION,
            STABLE_DIFFUSION,
            DREAMBOOTH,
            FEW_STEP,
            GLIDE,
            UNCLIP,
            KANDINSKY3,
            DALLE3,
            IMAGEN,
            UPSAMPLER,
            AUTOENCODER,
            VQ,
            MASKED_TOKENS,
            RCG,
            CLIP,
            CLASSIFIER,
            CAPTIONER,
            MAE,
            SAM,
            FOODFUSION,
            GAUSSIAN_SPLATTING,
            DREAMFUSION,
            VIDEO_LDM,
            SAMPLERS,
        )
    }
    for card in _added():
        cards.setdefault(card.slug, card)
    return cards


@cache
def _added() -> tuple[Card, ...]:
    """The cards of other packages. One that cannot be had is told of once, and costs the others nothing."""
    cards = []
    for point in entry_points(group="diorama.systems"):
        try:
            card = point.load()
            if not isinstance(card, Card):
                raise TypeError("it is no Card")
            cards.append(card)
        except Exception as error:  # a stranger's module may raise anything
            package = point.dist.name if point.dist else point.value
            line = " ".join(f"system {point.name!r} of package {package} is left out: {type(error).__name__}: {error}".split())
            print(f"diorama: {line}", file=sys.stderr)
    return tuple(cards)


def find(slug: str) -> Card:
    """The card of this name; UserError with the nearest names where there is none."""
    from difflib import get_close_matches

    cards = catalogue()
    if slug not in cards:
        near = get_close_matches(slug, cards, 3, 0.5)
        hint = f"did you mean {' or '.join(near)}? `diorama systems` lists all" if near else "`diorama systems` lists all"
        raise UserError(f"system {slug!r} is not known: {hint}")
    return cards[slug]


def system_class(card: Card) -> Any:
    """The class behind a card; UserError where there is none. This is where torch is imported."""
    if not card.place:
        raise UserError(f"{card.slug} is a study of parts, no system of its own: `diorama show {card.slug}` says of which")
    module, _, name = card.place.partition(":")
    return getattr(import_module(module), name)
