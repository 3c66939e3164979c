"""What a picture was made from, and how it travels inside the picture's own file. Imports no torch.

A PNG carries two text chunks: `parameters`, the line that AUTOMATIC1111's web UI began and most tools show, and
`diorama`, everything as JSON, from which `replay` makes the picture again. WebP and JPEG carry the same in EXIF and XMP.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diorama.errors import UserError
from diorama.files import atomic_file

FORMAT_VERSION = 1
SAMPLERS = {"euler": "Euler", "heun": "Heun", "dpmpp_2m": "DPM++ 2M"}  # ours: what other tools call them
CARRIED: tuple[str, ...] = ("parameters", "diorama")  # the text chunks
FORMATS = (".png", ".webp", ".jpg", ".jpeg")
LONGEST_PROMPT = 2000  # characters
MOST = 1000  # pictures of one sentence
SIZES = range(16, 1025)  # pixels along a side
LONGEST_CLIP = 512  # frames
LARGEST_CHUNK = 256  # a recipe comes from a stranger's file: it may not ask for any amount of memory

# --- what is asked for ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Request:
    """One picture as asked for; None leaves the choice to the model. UserError says what cannot be had."""

    prompt: str = ""  # the empty prompt asks for nothing in particular
    negative: str = ""
    seed: int = 0
    style: str | None = None
    steps: int | None = None
    guidance: float | None = None  # 1 is none
    solver: str | None = None
    size: int | None = None  # pixels along a side
    transparent: bool = False

    def __post_init__(self) -> None:
        for name in ("prompt", "negative"):
            _check_text(name, getattr(self, name))
        _check_whole("seed", self.seed, range(2**63), "0 to 2^63 - 1")
        _check_whole("steps", self.steps, range(1, 1001), "1 to 1000")
        _check_whole("size", self.size, SIZES, f"{SIZES.start} to {SIZES.stop - 1} pixels")
        _check_guidance(self.guidance)
        if self.solver is not None and self.solver not in SAMPLERS:
            raise UserError(f"solver {self.solver!r} is not known: use {', '.join(SAMPLERS)}")
        if self.style is not None and not isinstance(self.style, str):
            raise UserError(f"style {self.style!r} is not a name")
        if not isinstance(self.transparent, bool):
            raise UserError(f"transparent {self.transparent!r} is not allowed: use true or false")


def _check_text(name: str, text: Any) -> None:
    if not isinstance(text, str):
        raise UserError(f"{name} {text!r} is not a sentence: give text")
    if len(text) > LONGEST_PROMPT:
        raise UserError(f"{name} has {len(text)} characters: use at most {LONGEST_PROMPT}")
    if any("\ud800" <= letter <= "\udfff" for letter in text):  # what the shell hands over for bytes that are no UTF-8
        raise UserError(f"{name} {ascii(text)[:60]} is not valid text: write it in UTF-8")


def _check_whole(name: str, value: Any, allowed: range, words: str) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value not in allowed):
        raise UserError(f"{name} {value!r} is not allowed: use a whole number from {words}")


def _adapters(values: Any) -> tuple[tuple[str, str, float], ...]:
    """As tuples what JSON holds as lists."""
    try:
        found = tuple((name, weights, float(strength)) for name, weights, strength in values)
    except (TypeError, ValueError):
        found = (("", "", math.nan),)
    if not all(
        isinstance(name, str) and isinstance(weights, str) and math.isfinite(strength) for name, weights, strength in found
    ):
        raise UserError(f"adapters {values!r} of a recipe are not lists of name, weights and strength")
    return found


def _check_chosen(request: Request, *names: str) -> None:
    if missing := [name for name in names if getattr(request, name) is None]:
        raise UserError(f"a recipe without {missing[0]} makes no picture")


def _check_guidance(value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and not (number and math.isfinite(value) and value >= 0):
        raise UserError(f"guidance {value!r} is not allowed: use a number from 0 up, 1 is no guidance")


# --- what it was made with ------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Recipe(Request):
    """A request with every choice made, the model and the ground it was made on: enough for the same picture, bit for bit."""

    model: str
    weights: str  # SHA-256, as models.weights_hash counts it
    diorama: str  # versions
    torch: str
    dtype: str
    device: str
    processor: str  # what decides how kernels round
    threads: int
    chunk: int  # pictures sampled together
    row: int  # this one's place among them
    text_length: int  # tokens a sentence was padded to
    upsampler: str = ""  # SHA-256 of the weights that enlarged it, where any did
    adapters: Sequence[tuple[str, str, float]] = ()  # name, SHA-256 of its weights and strength of each that the model wore
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_chosen(self, "steps", "size")  # not every system takes a guidance or a solver
        for name in ("model", "weights", "upsampler", "diorama", "torch", "dtype", "device", "processor"):
            if not isinstance(getattr(self, name), str):
                raise UserError(f"{name} {getattr(self, name)!r} of a recipe is not text")
        object.__setattr__(self, "adapters", _adapters(self.adapters))
        _check_whole("threads", self.threads, range(1, 1025), "1 to 1024")
        _check_whole("chunk", self.chunk, range(1, LARGEST_CHUNK + 1), f"1 to {LARGEST_CHUNK}")
        _check_whole("row", self.row, range(self.chunk), f"0 to {self.chunk - 1}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> Recipe:
        """Raises UserError where it is not a recipe, or one of a newer diorama."""
        if not isinstance(values, Mapping):
            raise UserError("its recipe is not a JSON object: the file was changed")
        version = values.get("format_version", 1)
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise UserError(f"its recipe has format_version {version}, this diorama reads up to {FORMAT_VERSION}: update diorama")
        names = {f.name: f for f in fields(cls)}
        if missing := [name for name, f in names.items() if f.default is MISSING and name not in values]:
            raise UserError(f"its recipe lacks {missing[0]}: the file was changed")
        return cls(**{name: value for name, value in values.items() if name in names})

    def to_json(self) -> str:
        return json.dumps(self.to_dict())  # ASCII: any tool that copies chunks keeps it whole

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        return cls.from_dict(_parse(text))

    @property
    def maker(self) -> str:
        """The model it was made with, in words."""
        return f"model {self.model!r}, weights {self.weights[:10]}"

    @property
    def parameters(self) -> str:
        """The text that AUTOMATIC1111's web UI writes: prompt, negative prompt, and one line of settings."""
        settings = {
            "Steps": self.steps,
            **({} if self.solver is None else {"Sampler": SAMPLERS[self.solver]}),
            **({} if self.guidance is None else {"CFG scale": f"{self.guidance:g}"}),
            "Seed": self.seed,
            "Size": f"{self.size}x{self.size}",
            "Model hash": self.weights[:10],
            "Model": self.model,
            **({"Style": self.style} if self.style else {}),
            **(
                {"Lora hashes": ", ".join(f"{name}: {weights[:12]}" for name, weights, _ in self.adapters)}
                if self.adapters
                else {}
            ),
            "Version": f"diorama {self.diorama}",
        }
        lines = [self.prompt, f"Negative prompt: {self.negative}"] if self.negative else [self.prompt]
        return "\n".join([*lines, ", ".join(f"{name}: {_quoted(value)}" for name, value in settings.items())])


@dataclass(frozen=True, kw_only=True)
class ClipRecipe(Recipe):
    """The recipe of a clip: what a picture's says of each frame, and how it moves."""

    frames: int
    fps: float
    pressed: float  # the first frame's guidance
    first: str = ""  # SHA-256 of the first frame's file, where there was one

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_chosen(self, "guidance", "solver")
        _check_whole("frames", self.frames, range(1, LONGEST_CLIP + 1), f"1 to {LONGEST_CLIP}")
        if not isinstance(self.first, str):
            raise UserError(f"first {self.first!r} of a recipe is not text")
        for name in ("fps", "pressed"):
            if not isinstance(value := getattr(self, name), int | float) or not 0 <= value < math.inf:
                raise UserError(f"{name} {value!r} of a recipe is not a number from 0 up")


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r'[,:\n"]', text) else text


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError("its recipe is not valid JSON: the file was changed") from error


# --- pictures and their files ---------------------------------------------------------------------


class Picture(Image.Image):
    """A Pillow picture that knows its recipe, and whose `save` writes it into the file. A copy or an edit is a plain picture."""

    recipe: Recipe
    seconds: float  # its share of the time that sampling took

    @classmethod
    def of(cls, image: Image.Image, recipe: Recipe, seconds: float = 0.0) -> Picture:
        """This very image, made a Picture."""
        image.__class__ = cls  # Pillow has no public way to build a subclass around pixels
        assert isinstance(image, cls)
        image.recipe, image.seconds = recipe, seconds
        image.info |= {"parameters": recipe.parameters, "diorama": recipe.to_json()}
        return image

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """Pillow's own, except that a path with nothing more said is written whole or not at all, with the recipe."""
        if format or params or not isinstance(fp, (str, Path)) or Path(fp).suffix.lower() not in FORMATS:
            super().save(fp, format, **params)
        else:
            save(self, fp)


def save(image: Image.Image, path: str | Path, *, recipe: bool = True) -> None:
    """Write the picture, atomically, with what its `info` says of its recipe unless `recipe` is false.

    The suffix chooses: .png, .webp (lossless) or .jpg. Raises UserError for another, and where the file cannot be written.
    """
    suffix = check_suffix(path)
    if suffix in (".jpg", ".jpeg") and "A" in image.mode:
        raise UserError(f"{path}: JPEG knows no transparency: use .png or .webp")
    told: dict[str, str] = {name: image.info[name] for name in CARRIED if name in image.info} if recipe else {}
    options: dict[str, Any] = {".png": {}, ".webp": {"lossless": True, "exact": True}}.get(
        suffix, {"quality": 95, "subsampling": 0}
    )
    if told:
        options |= {"pnginfo": _chunks(told)} if suffix == ".png" else _segments(told)
    with atomic_file(path) as temporary:
        Image.Image.save(image.copy() if isinstance(image, Picture) else image, temporary, **options)


MOTIONS = (".webp", ".gif", ".png")  # animations that need nothing but Pillow


def save_animation(frames: Sequence[Image.Image], path: str | Path, fps: float, told: Mapping[str, str]) -> None:
    """Write frames as one animation without an end, atomically, with what `told` says (CARRIED); the suffix chooses, of MOTIONS."""
    suffix = Path(path).suffix.lower()
    formats: dict[str, dict[str, Any]] = {".webp": {"lossless": True}, ".gif": {"disposal": 2}, ".png": {}}
    options = formats[suffix]
    if told and suffix == ".gif":
        options |= {"comment": told["diorama"].encode()}
    elif told:
        options |= {"pnginfo": _chunks(told)} if suffix == ".png" else _segments(told)
    with atomic_file(path) as temporary:
        frames[0].save(temporary, save_all=True, append_images=frames[1:], duration=round(1000 / fps), loop=0, **options)


def check_suffix(path: str | Path) -> str:
    """The suffix in small letters; UserError unless it is one of a picture."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"{path} does not end in {', '.join(FORMATS)}: choose one of these")
    return suffix


def tell_of_sheet(sheet: Image.Image, recipes: Sequence[Recipe]) -> None:
    """Let a sheet of several pictures carry all their recipes."""
    together = {"format_version": FORMAT_VERSION, "sheet": [recipe.to_dict() for recipe in recipes]}
    sheet.info |= {"parameters": recipes[0].parameters, "diorama": json.dumps(together)}


def read_recipe(path: str | Path) -> Recipe:
    """The recipe inside a picture file. Raises UserError, saying what is there instead, where there is none."""
    recipes = read_recipes(path)
    if len(recipes) > 1:
        raise UserError(f"{path} is a sheet of {len(recipes)} pictures: use read_recipes")
    return recipes[0]


def read_recipes(path: str | Path) -> list[Recipe]:
    """The recipe of a picture, or those of a sheet in reading order."""
    info = _info(path)
    text = info.get("diorama") or _from_xmp(info.get("xmp")) or _from_gif(info.get("comment"))
    if not isinstance(text, str):
        raise UserError(f"{path} has no diorama recipe ({_found(info)}): give a picture that diorama wrote with its recipe")
    try:
        values = _parse(text)
        rows = values["sheet"] if isinstance(values, dict) and isinstance(values.get("sheet"), list) else [values]
        return [(ClipRecipe if isinstance(row, dict) and "frames" in row else Recipe).from_dict(row) for row in rows]
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _info(path: str | Path) -> dict[Any, Any]:
    """What Pillow reads before the pixels, which stay unread: a foreign file may be a bomb."""
    try:
        with Image.open(path) as image:
            return {**image.info, "UserComment": image.getexif().get_ifd(0x8769).get(0x9286)}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give a picture that diorama wrote") from None
    except Exception as error:  # broken files make Pillow raise almost anything, struct.error and SyntaxError among it
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a picture, or a damaged one"
        raise UserError(f"{path} cannot be read ({reason}): give a picture that diorama wrote") from None


TRACES = {
    "invokeai_metadata": "InvokeAI metadata",
    "sd-metadata": "old InvokeAI metadata",
    "Dream": "old InvokeAI metadata",
    "workflow": "a ComfyUI workflow",
    "prompt": "a ComfyUI workflow",
    "fooocus_scheme": "Fooocus parameters",
    "Comment": "a comment, as NovelAI writes",
}


def _found(info: Mapping[Any, Any]) -> str:
    """What another tool left in the file, in words."""
    if found := next((words for key, words in TRACES.items() if key in info), None):
        return f"it holds {found}"
    parameters = info.get("parameters") or _comment(info.get("UserComment"))
    if "sui_image_params" in parameters:
        return "it holds SwarmUI parameters"
    return "it holds an A1111 parameters line" if "Steps: " in parameters else "it holds no recipe of any tool we know"


# --- PNG chunks, EXIF and XMP ---------------------------------------------------------------------

XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:diorama="urn:diorama:1">
<Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType>{}
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""  # IPTC's mark of a picture that a trained model made


def _chunks(told: Mapping[str, str]) -> PngInfo:
    chunks = PngInfo()
    for key, text in told.items():
        chunks.add_text(key, text.replace("\0", ""))  # Latin-1 goes as tEXt, anything else as iTXt
    chunks.add_itxt("XML:com.adobe.xmp", XMP.format(""))
    return chunks


def _segments(told: Mapping[str, str]) -> dict[str, Any]:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + told["parameters"].encode("utf-16-be")  # UserComment, as A1111 writes it
    recipe = f"\n<diorama:recipe>{html.escape(told['diorama'])}</diorama:recipe>"
    return {"exif": exif, "xmp": XMP.format(recipe).encode()}


def _from_xmp(packet: Any) -> str | None:
    text = packet.decode("utf-8", "replace") if isinstance(packet, bytes) else str(packet or "")
    found = re.search(r"<diorama:recipe>(.*?)</diorama:recipe>", text, re.S)
    return html.unescape(found[1]) if found else None


def _from_gif(comment: Any) -> str | None:
    return comment.decode("utf-8", "replace") if isinstance(comment, bytes) and comment.startswith(b"{") else None


def _comment(value: Any) -> str:
    if not isinstance(value, bytes):
        return str(value or "")
    return value[8:].decode("utf-16-be" if value.startswith(b"UNICODE") else "utf-8", "replace")
