"""A tiny checkpoint in diffusers' own format: read as a painter, it paints what diffusers paints."""

import json
import re
import shutil
import sys
from unittest.mock import Mock

import pytest
import tiny
import torch
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from diorama.apps.cli import main
from diorama.errors import UserError
from diorama.guidance.distill import distill
from diorama.hub.stable_diffusion import Words as Tower
from diorama.hub.stable_diffusion import check_fit
from diorama.models import fetched, fetched_files, index_of, known_as, locate, weights_hash
from diorama.networks.lora import Adapter
from diorama.pipeline import load
from diorama.systems.base import load_system
from diorama.systems.images.dreambooth import PLANS, DreamBooth, Words, plan_for
from diorama.training.plan import Plan
from diorama.types import Noise

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

WORDS = ["a", "red", "blue", "cat", "toy", "on", "grass"]
SIDE, STEPS, GUIDANCE = 8, 4, 4.0  # of the latents: 16 pixels; 999 is three steps of 333, so that no level lies between two
PROMPTS, NEGATIVE = ["a red cat", "a blue toy on grass"], ["grass", "grass"]


def tokenizer():
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    merges = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts[:2] = [parts[0] + parts[1]]
            pieces.append(parts[0])
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    return transformers.CLIPTokenizer(vocab, list(dict.fromkeys(merges)), model_max_length=12)


def pipeline(prediction_type: str = "epsilon"):
    torch.manual_seed(0)
    words = tokenizer()
    text = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=12, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        )
    )  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        sample_size=SIDE, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, cross_attention_dim=16,
        attention_head_dim=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(16, 16), norm_num_groups=8, latent_channels=4, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace",
        prediction_type=prediction_type, steps_offset=1,
    )  # fmt: skip
    return diffusers.StableDiffusionPipeline(vae, text.eval(), words, unet, scheduler, None, None, requires_safety_checker=False)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "tiny"
    pipeline().save_pretrained(folder)
    return folder


def painted_by_diffusers(pipe) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler.set_timesteps(STEPS)
    sigma = pipe.scheduler.sigmas[0]  # it starts from noise of this level and leaves out the sample below it
    latents = Noise([1, 2]).normal(4, SIDE, SIDE) * (1 + sigma**2).sqrt() / pipe.scheduler.init_noise_sigma
    return pipe(
        PROMPTS, negative_prompt=NEGATIVE, latents=latents, num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type="pt"
    ).images


def painted(system) -> torch.Tensor:
    x = system.sample(PROMPTS, negative=NEGATIVE, steps=STEPS, guidance=GUIDANCE, noise=Noise([1, 2]))
    return (x[:, :3] + 1) / 2


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_it_paints_what_diffusers_paints(tmp_path, kind):
    pipe = pipeline(kind)
    pipe.save_pretrained(tmp_path)
    found, theirs = painted(load_system(tmp_path)), painted_by_diffusers(pipe)
    assert theirs.std() > 0.01
    assert (found - theirs).abs().max() < 1e-4


def test_without_a_negative_it_is_guided_away_from_the_empty_sentence(saved):
    system = load_system(saved)
    how = {"steps": 2, "guidance": 3.0}
    plain = system.sample(PROMPTS, noise=Noise([1, 2]), **how)
    assert torch.equal(plain, system.sample(PROMPTS, negative=["", ""], noise=Noise([1, 2]), **how))
    assert not torch.allclose(plain, system.sample(PROMPTS, negative=NEGATIVE, noise=Noise([1, 2]), **how))
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(saved)
    assert torch.allclose(system.network.nothing, pipe.encode_prompt("", "cpu", 1, False)[0], atol=1e-6)


def test_the_codec_is_theirs_on_colours(saved):
    system, x = load_system(saved), Noise([3]).uniform(4, 16, 16) * 2 - 1
    vae = diffusers.AutoencoderKL.from_pretrained(saved, subfolder="vae")
    with torch.no_grad():
        z = vae.encode(x[:, :3]).latent_dist.mean * vae.config.scaling_factor
        assert torch.allclose(system.codec.encode(x), z, atol=1e-5)
        assert torch.allclose(system.codec.decode(z)[:, :3], vae.decode(z / vae.config.scaling_factor).sample, atol=1e-5)
        assert (system.codec.decode(z)[:, 3] == 1).all()


def test_words_become_the_pieces_of_transformers(saved):
    text = load_system(saved).text
    long = " ".join(["a red cat"] * 9)  # more pieces than fit
    for prompt in ("a red cat", "Zebra, on grass!", long):
        theirs = text.words(prompt, padding="max_length", truncation=True).input_ids
        assert text.tokenizer.encode(prompt).ids == theirs[: len(text.tokenizer.encode(prompt).ids)]
    assert (text([" "]).mask.any(), text([" "]).tokens.any(), text([" "]).pooled.any()) == (False, False, False)


def test_saved_again_both_read_it(saved, tmp_path):
    load_system(saved).save_pretrained(tmp_path / "again", name="mine")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "again")
    assert torch.allclose(painted_by_diffusers(pipe), painted(load_system(saved)), atol=1e-4)
    assert known_as(tmp_path / "again") == "mine"
    assert weights_hash(tmp_path / "again") == weights_hash(saved)


def test_it_learns_a_subject(saved):
    system = DreamBooth(load_system(saved), Words.of("zwx toy"), rank=2)
    assert {name for name, _ in system.named_parameters() if "lora" in name}
    assert all("to_" in name for name, p in system.named_parameters() if p.requires_grad)
    plan = Plan(steps=8, batch=4, lr=2e-2, warmup=0, ema=0.0, device="cpu", dtype="float32")
    before = {name: value.clone() for name, value in system.state_dict().items() if ".lora_" not in name}
    system.learn(Noise([1]).uniform(4, 16, 16).expand(3, -1, -1, -1) * 2 - 1, plan, 2, steps=1)
    assert all(torch.equal(value, before[name]) for name, value in system.state_dict().items() if name in before)
    assert all(delta.any() for delta in Adapter.of(system.painter).deltas.values())


def test_diffusers_wears_what_it_learned(saved, tmp_path):
    pytest.importorskip("peft")  # which diffusers wears adapters by
    system = DreamBooth(load_system(saved), Words.of("zwx toy"), rank=2)
    for name, weight in system.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(0))
    system.save_pretrained(tmp_path / "sub")
    worn = load_system(saved)
    Adapter.read(tmp_path / "sub").merge(worn)
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(saved)
    pipe.load_lora_weights(tmp_path / "sub")
    theirs = painted_by_diffusers(pipe)
    assert (painted(worn) - theirs).abs().max() < 1e-4
    assert (painted(load_system(saved)) - theirs).abs().max() > 1e-2


def test_a_rare_piece_means_nothing(saved, monkeypatch):
    text = load_system(saved).text
    assert text.means("cat") and not text.means("sks")
    monkeypatch.setattr("diorama.hub.stable_diffusion.RARE", 10)
    assert not text.means("cat")


def test_large_networks_learn_in_small_steps(saved, monkeypatch):
    painter = load_system(saved)
    assert (plan_for(painter, False), plan_for(painter, True)) == (PLANS["lora"], PLANS["full"])
    monkeypatch.setattr("diorama.systems.images.dreambooth.LARGE", 1)
    assert (plan_for(painter, False), plan_for(painter, True)) == (PLANS["large lora"], PLANS["large full"])


def test_its_scores_can_be_distilled(saved):
    painter = load_system(saved)
    x = Noise([1]).normal(4, SIDE, SIDE).requires_grad_()
    loss = distill(painter.guided(7.5), x, painter.condition(["a cat"]), torch.tensor([2.0]), Noise([2]))
    loss.sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


# --- from the command line ------------------------------------------------------------------------


def test_personalize_then_generate_then_replay(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i, colour in enumerate(("red", "blue")):
        Image.new("RGB", (32, 32), colour).save(tmp_path / "photos" / f"{i}.png")
    learn = ["personalize", "photos", "--as", "zwx toy", "--system", str(saved), "--prior", "1", "--steps", "2", "-o", "sub"]
    assert main(learn) == 0
    paint = ["generate", "a zwx toy", "--system", str(saved), "--adapter", "sub", "--steps", "2", "-o", "out.png"]
    assert main(paint) == 0
    assert Image.open("out.png").size == (16, 16)
    assert main(["replay", "out.png", "--system", str(saved), "--adapter", "sub", "-o", "again.png"]) == 0
    assert Image.open("again.png").tobytes() == Image.open("out.png").tobytes()
    assert main([*learn[:-1], "whole", "--full"]) == 0
    assert index_of(tmp_path / "whole")["_class_name"] == "StableDiffusionPipeline"
    assert main(["generate", "a zwx toy", "--system", "whole", "--steps", "2", "-o", "other.png"]) == 0
    assert main(["show", "whole"]) == 0
    assert re.search(r"stable-diffusion(.|\n)*size +16\n", capsys.readouterr().out)


def test_it_is_tuned_on_pictures_with_captions(saved, tmp_path, capsys):
    """All of its network, from where it stood: a system like any other to the training loop."""
    data = tiny.pictures(tmp_path / "squares")
    begin = ["train", "stable-diffusion", "--data", str(data), "--batch", "4", "--steps", "2", "--lr", "1e-3"]
    assert main([*begin, "--start", str(saved), "-o", str(tmp_path / "run")]) == 0
    tuned, before = load_system(tmp_path / "run" / "model"), load_system(saved)
    moved = [(a - b).abs().max() for a, b in zip(tuned.network.parameters(), before.network.parameters(), strict=True)]
    assert 0 < max(moved) < 0.01
    assert all(torch.equal(a, b) for a, b in zip(tuned.text.parameters(), before.text.parameters(), strict=True))
    assert main([*begin, "-o", str(tmp_path / "none")]) == 2
    assert "name a checkpoint to go on from with --start" in capsys.readouterr().err


def test_what_it_asks_for_by_default(saved):
    assert load(saved).defaults == {"steps": 25, "guidance": 7.5, "solver": "dpmpp_2m"}


# --- what cannot be read --------------------------------------------------------------------------


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copied")


def change(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_another_pipeline_is_told(copied):
    change(copied / "model_index.json", _class_name="FluxPipeline")
    with pytest.raises(UserError, match="is a FluxPipeline of diffusers, which is not read yet: give a StableDiffusionPipeline"):
        load(copied)


def test_a_missing_part_is_told(copied):
    shutil.rmtree(copied / "vae")
    with pytest.raises(UserError, match="vae is not there: fetch the checkpoint again"):
        load(copied)


def test_pickled_weights_are_never_read(copied):
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(UserError, match="unet has no .*: weights in pickles, shards or variants such as .fp16 are not read"):
        load(copied)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_are_missing_are_told(copied, part):
    file = next((copied / part).glob("*.safetensors"))
    state = load_file(file)
    save_file(dict(list(state.items())[1:]), file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"the weights in .*{part} are not those of its config \(1 are missing or other"):
        load(copied)


def test_a_tokenizer_that_is_missing_or_another_one_is_told(copied):
    (copied / "tokenizer" / "tokenizer.json").rename(copied / "kept.json")
    with pytest.raises(UserError, match=r"tokenizer has neither tokenizer\.json nor vocab\.json with merges\.txt"):
        load(copied)
    words = Tokenizer.from_file(str(copied / "kept.json"))
    words.add_tokens(["owl"])
    words.save(str(copied / "tokenizer" / "tokenizer.json"))
    with pytest.raises(UserError, match=r"tokenizer knows \d+ pieces, the text tower \d+"):
        load(copied)
    shutil.rmtree(copied / "tokenizer")
    with pytest.raises(UserError, match="tokenizer is not there"):
        load(copied)


def test_words_that_clip_does_not_read_are_told(copied):
    change(copied / "text_encoder" / "config.json", model_type="bert")
    with pytest.raises(UserError, match="text_encoder is a bert, which is not read yet"):
        load(copied)


def test_parts_that_do_not_fit_are_told(saved):
    system = load_system(saved)
    check_fit(system.codec, system.text, system.network)
    system.text.config = Tower(width=32, max_tokens=12)
    with pytest.raises(UserError, match="cross_attention_dim of the network is 16, not 32"):
        check_fit(system.codec, system.text, system.network)
    system.network.model.register_to_config(time_cond_proj_dim=8)
    with pytest.raises(UserError, match=r"is told more than words \(time_cond_proj_dim\)"):
        check_fit(system.codec, system.text, system.network)


def test_it_is_stored_in_float32_alone(saved, tmp_path):
    with pytest.raises(UserError, match="storage 'int8' of a checkpoint of diffusers is not written yet"):
        load(saved).save_pretrained(tmp_path / "small", storage="int8")
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"prediction_type": "sample"}, "prediction_type 'sample', which is not read: .* epsilon or v_prediction"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule 'sigmoid', which is not read"),
        ({"rescale_betas_zero_snr": True}, "levels of its own"),
    ],
)
def test_a_schedule_that_is_not_known_is_told(copied, setting, told):
    change(copied / "scheduler" / "scheduler_config.json", **setting)
    with pytest.raises(UserError, match=told):
        load(copied)


def test_a_network_that_is_shown_a_picture_is_told(saved, tmp_path):
    pipe = pipeline()
    torch.manual_seed(0)
    pipe.unet = diffusers.UNet2DConditionModel.from_config(pipe.unet.config, in_channels=9)
    pipe.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="takes 9 channels and gives 4"):
        load(tmp_path)


# --- on the hub -----------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with one checkpoint, `some/model`; what was asked of it."""
    asked, snapshot = [], tmp_path / "models--some--model" / "snapshots" / "0a1b"
    snapshot.mkdir(parents=True)
    (snapshot / "model_index.json").write_text(
        json.dumps({"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.1"})
    )

    def index(repo, file, revision):
        asked.append((repo, file, revision))
        return str(snapshot / file)

    def rest(repo, *, revision, allow_patterns):
        asked.append((repo, tuple(allow_patterns), revision))

    monkeypatch.setattr("huggingface_hub.hf_hub_download", index)
    monkeypatch.setattr("huggingface_hub.snapshot_download", rest)
    fetched_files.cache_clear()
    return asked, snapshot


def test_a_name_on_the_hub_is_fetched_once_without_pickles_and_variants(hub):
    asked, snapshot = hub
    assert locate("hub:some/model@main") == locate("hub:some/model@main") == snapshot
    (_, first, revision), (_, files, commit) = asked
    assert (first, revision, commit) == ("model_index.json", "main", "0a1b")
    assert "unet/diffusion_pytorch_model.safetensors" in files
    assert not any(name.startswith("unet/*") or ".bin" in name for name in files)
    assert known_as(snapshot) == "hub:some/model"


def test_what_is_not_read_is_not_fetched(hub):
    asked, snapshot = hub
    change(snapshot / "model_index.json", _class_name="StableDiffusionXLPipeline")
    with pytest.raises(UserError, match="is a StableDiffusionXLPipeline of diffusers, which is not read yet"):
        locate("hub:some/model")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("no network\nlong story"), r"^hub:some/model cannot be fetched \(no network\): try again"),
        (HFValidationError("no"), "is no name on the hub: write hub:OWNER/NAME"),
        (RepositoryNotFoundError("no", response=Mock()), "is not on the hub, or is private"),
        (GatedRepoError("no", response=Mock()), "asks to agree to its terms first"),
    ],
)
def test_what_cannot_be_fetched_is_told_in_one_line(hub, monkeypatch, error, told):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", Mock(side_effect=error))
    with pytest.raises(UserError, match=told):
        fetched("hub:some/model")


def test_without_diffusers_it_says_what_to_install(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"pip install 'diorama\[hub\]'"):
        load(saved)
