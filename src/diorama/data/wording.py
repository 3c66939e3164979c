"""What can be wrong with a caption, told from its words alone."""

from __future__ import annotations

import re
from hashlib import blake2b

FAULTS = ("", "empty", "not text", "file name", "boilerplate")  # the first is none; a picture's row holds the place of its own

FILE_NAME = re.compile(
    r"(?:.*\.(?:jpe?g|png|gif|webp|bmp|tiff?|heic|svg)"  # anything.jpg
    r"|(?:img|dsc[nf]?|pxl|mvi|image|photo|picture|screen ?shot|scan|file|unnamed|download)[\W_\d]*"  # IMG_2041, Screenshot 3
    r"|(?=\S*\d{4})(?=\S*[\d_-])[\w-]+"  # 20190412_133702, a8f39-00042
    r"|[0-9a-f]{16,})",
    re.IGNORECASE,
)
BOILERPLATE = re.compile(
    r"(?:image|photo|picture) may contain|click (?:here|to (?:enlarge|zoom|view))|all rights reserved|stock (?:photo|image|vector)"
    r"|royalty[- ]free|no (?:description|caption|alt text)|lorem ipsum|^untitled\b|^placeholder\b|^alt text$|free download"
    r"|https?://|www\.|^n/?a$|^(?:none|null|nan|unknown|test)$",
    re.IGNORECASE,
)
MARKUP = re.compile(r"<[a-z/!][^>]*>|&[a-z]+;|\{\{|\ufffd", re.IGNORECASE)


def caption_fault(text: str) -> str:
    """Which of `FAULTS` a caption has. Letters of any script are letters."""
    text = text.strip()
    if not text:
        return "empty"
    if FILE_NAME.fullmatch(text):
        return "file name"
    if BOILERPLATE.search(text):
        return "boilerplate"
    letters, signs = sum(c.isalpha() for c in text), sum(not c.isspace() for c in text)
    return "not text" if 2 * letters < signs or MARKUP.search(text) else ""


def words(text: str) -> int:
    """How many words; where a script puts no spaces between them, each letter is one."""
    return sum(1 if word.isascii() else max(1, sum("\u2e80" <= c <= "\uffff" for c in word)) for word in re.findall(r"\w+", text))


def saying(text: str, label: str | None) -> int:
    """A number by which equal captions are found, whatever their case and signs; 0 where it is only the label, which may repeat."""
    plain = " ".join(re.findall(r"\w+", text.lower()))
    if label is not None and plain == " ".join(re.findall(r"[^\W_]+", label.lower())):
        return 0
    return int.from_bytes(blake2b(plain.encode(), digest_size=8).digest())
