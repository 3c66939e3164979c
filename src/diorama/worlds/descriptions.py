"""What a sentence claims of a scene: read from words, and held to a scene or to what an oracle saw."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from diorama.errors import UserError
from diorama.worlds.words import ANYTHING, NUMBERS, SYNONYMS, plural

CLEARLY = 0.1  # by how much of the picture's side one thing must be left of another before a caption says so


class Seen(Protocol):
    """One thing as a scene or an oracle tells it. None is "could not be read" and agrees with nothing that is said."""

    @property
    def shape(self) -> str | None: ...
    @property
    def colour(self) -> str | None: ...
    @property
    def size(self) -> str | None: ...
    @property
    def texture(self) -> str | None: ...
    @property
    def x(self) -> float: ...
    @property
    def y(self) -> float: ...


class Account(Protocol):
    """A scene, or what an oracle read of a picture."""

    @property
    def named(self) -> Sequence[Seen]: ...
    @property
    def behind_named(self) -> Sequence[tuple[int, int]]: ...
    @property
    def style(self) -> str | None: ...
    @property
    def tone(self) -> str | None: ...


@dataclass(frozen=True)
class Said:
    """One noun phrase. None is not said; count None is "a", one or more, a number is exactly that many."""

    shape: str | None = None  # None: a thing of any shape
    colour: str | None = None
    size: str | None = None
    texture: str | None = None
    count: int | None = None

    def fits(self, thing: Seen) -> bool:
        """Whether the thing is one of these."""
        words = ("shape", "colour", "size", "texture")
        return all(getattr(self, word) in (None, getattr(thing, word)) for word in words)


@dataclass(frozen=True)
class Description:
    """What a caption claims."""

    things: tuple[Said, ...] = ()
    relations: tuple[tuple[int, str, int], ...] = ()  # (i, word, j): things[i] is `word` things[j]
    absent: tuple[Said, ...] = ()
    style: str | None = None
    tone: str | None = None  # of the ground

    def claims(self, account: Account) -> list[bool]:
        """Each single claim, true or not of this account."""
        named = account.named
        fits = [[i for i, thing in enumerate(named) if said.fits(thing)] for said in self.things]
        found = [len(f) == s.count if s.count is not None else bool(f) for s, f in zip(self.things, fits, strict=True)]
        found += [any(_holds(word, a, b, account) for a in fits[i] for b in fits[j]) for i, word, j in self.relations]
        found += [not any(said.fits(thing) for thing in named) for said in self.absent]
        found += [self.style == account.style] if self.style else []
        found += [self.tone == account.tone] if self.tone else []
        return found

    def true_of(self, account: Account) -> bool:
        """Whether every claim holds."""
        return all(self.claims(account))


def _holds(word: str, a: int, b: int, account: Account) -> bool:
    if a == b:
        return False
    first, second = account.named[a], account.named[b]
    across, down = second.x - first.x, second.y - first.y
    return {
        "left": across > CLEARLY / 2,
        "right": across < -CLEARLY / 2,
        "above": down > CLEARLY / 2,
        "below": down < -CLEARLY / 2,
        "behind": (a, b) in account.behind_named,
        "front": (b, a) in account.behind_named,
    }[word]


# --- words to description -------------------------------------------------------------------------


def _any(words: Sequence[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def _table(kind: str) -> dict[str, str]:
    return {word: name for name, words in SYNONYMS[kind].items() for word in words}


_TABLES = {kind: _table(kind) for kind in SYNONYMS}
_NOUNS: dict[str, str | None] = {**_TABLES["shape"], **dict.fromkeys(ANYTHING)}
_NOUNS |= {plural(noun): shape for noun, shape in _NOUNS.items()}
_COUNTS: dict[str, int | None] = {word: n for n, word in NUMBERS.items()} | {str(n): n for n in NUMBERS} | {"a": None, "an": None}
_PHRASE = re.compile(
    rf"(?:(?P<count>{_any(list(_COUNTS))}|the|any) )?(?:(?P<size>{_any(list(_TABLES['size']))}) )?"
    rf"(?:(?P<texture>{_any(list(_TABLES['texture']))}) )?(?:(?P<colour>{_any(list(_TABLES['colour']))}) )?"
    rf"(?P<noun>{_any(list(_NOUNS))})\b"
)
_RELATION = re.compile(rf"(?:is |are )?(?P<word>{_any(list(_TABLES['relation']))})\b")
_STYLE = re.compile(rf"(?P<word>{_any(list(_TABLES['style']))})\b")
_TONE = re.compile(rf"(?:on|against) an? (?P<word>{_any(list(_TABLES['tone']))}) (?:background|backdrop)\b")
_NOT = re.compile(r"(?:but |and )?(?:no|without)\b")
_FILLER = re.compile(
    r"\.(?:png|jpg)$|[\s,.;:|]+|(?:and|there is|there are|a picture of|a photo of|a drawing of|with|nothing)\b"
    r"|(?:img_|untitled |clipart |stock vector |free download |icon )\d+"
)


def parse(words: str) -> Description:
    """What the caption claims. Raises UserError, in one line, where a word is none of the grammar's."""
    text = re.sub(r"(?<=\w)-(?=\w)", " ", " ".join(words.lower().split())).replace("medium sized", "medium")
    things: list[Said] = []
    relations: list[tuple[int, str, int]] = []
    absent: list[Said] = []
    found: dict[str, str] = {}
    waiting: str | None = None  # a relation or a "no" whose noun phrase is still to come
    at = 0
    while at < len(text):
        if match := _STYLE.match(text, at) or _TONE.match(text, at):
            kind = "style" if match.re is _STYLE else "tone"
            found[kind] = _TABLES[kind][match["word"]]
        elif match := _NOT.match(text, at):
            waiting = "no"
        elif things and (match := _RELATION.match(text, at)):
            waiting = _TABLES["relation"][match["word"]]
        elif match := _PHRASE.match(text, at):
            said = _said(match)
            (absent if waiting == "no" else things).append(said)
            if waiting not in (None, "no"):
                relations.append((len(things) - 2, str(waiting), len(things) - 1))
            waiting = None
        elif not (match := _FILLER.match(text, at)):
            raise UserError(
                f"cannot read {text[at : at + 30]!r} in this caption: use words of the world, as in 'a small red star'"
            )
        at = match.end()
    if waiting is not None or not text.strip(" ,.;:|"):
        raise UserError(f"the caption {text[:60]!r} has no end: name a thing, as in 'a small red star'")
    if not (things or absent or found):
        raise UserError(f"the caption {text[:60]!r} says nothing that can be seen: name a thing, as in 'a small red star'")
    return Description(tuple(things), tuple(relations), tuple(absent), found.get("style"), found.get("tone"))


def _said(match: re.Match[str]) -> Said:
    adjectives = {kind: _TABLES[kind][word] for kind in ("colour", "size", "texture") if (word := match[kind])}
    return Said(shape=_NOUNS[match["noun"]], count=_COUNTS.get(match["count"] or ""), **adjectives)
