"""Small English for composed captions: articles, adjectives, plurals. It says nothing where it is not sure."""

from __future__ import annotations

import re

ARTICLES = ("a ", "an ", "the ")
LINKS = re.compile(r" (?:with|of|on|in|and|for|holding|under|over|behind|at|from|without|between|showing) ")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SKIN = re.compile(r", ((?:medium-light|medium-dark|light|medium|dark) skin tone)\Z")
BARE = re.compile(
    r"(?:[A-Za-z][A-Za-z'’\-]* )*[a-z][a-z'’\-]*\Z"
)  # plain words, the noun in small letters: not "keycap: 3", "Tokyo"
VOWEL = re.compile(r"(?:[aeiou]|hour|honest|heir|x-ray|SOS\b|ATM\b)", re.I)
CONSONANT = re.compile(r"(?:uni(?!n)|use|usu|ut|eu|one\b|once\b|ukulele|ufo)", re.I)
SINGULAR_S = ("ss", "us", "is", "ics", "lens")
SOMEONE = _words("person man woman boy girl child baby adult")
NOUNS = _words(
    "dumpling bed seed weed sled steed reed shed ring king wing building painting drawing earring swing wedding string"
)
SAME = _words("sheep fish deer shrimp squid bison")
UNCOUNTED = _words(
    "skis popcorn way thirty zzz dna up down left right people men women children police feet teeth mice rice bread cheese bacon "
    "butter salt honey milk sake hair lightning fog rain snow wind fire ice money music mail luggage furniture spaghetti sushi "
    "curry corn broccoli tofu soccer football baseball basketball volleyball tennis badminton cricket golf hockey "
    "lacrosse garlic rugby wood sunrise sunset roll night day dusk dawn jewelry makeup thread yarn poo "
    "vomit water sweat laundry medicine science art theater traffic food tea coffee wine"
)
IRREGULAR = dict(
    word.split("/")
    for word in _words(
        "man/men woman/women person/people child/children mouse/mice die/dice goose/geese foot/feet tooth/teeth leaf/leaves "
        "knife/knives wolf/wolves loaf/loaves ox/oxen cactus/cacti potato/potatoes tomato/tomatoes mango/mangoes "
        "volcano/volcanoes snowman/snowmen policeman/policemen octopus/octopuses"
    )
)


def head(phrase: str) -> str:
    """The noun that carries a phrase: "bowl" of "bowl with spoon"."""
    return LINKS.split(phrase.split(", ")[0])[0].split(" ")[-1]


def article(phrase: str) -> str:
    """The word "a" or "an" for this phrase, by its sound as far as spelling tells."""
    return "an" if VOWEL.match(phrase) and not CONSONANT.match(phrase) else "a"


def countable(phrase: str) -> bool:
    """Whether "a" may stand before it: plain words whose noun is one of a kind that is counted."""
    words, noun = LINKS.split(phrase.split(", ")[0])[0], head(phrase)
    if not BARE.match(words) or words.startswith("no "):
        return False
    if words.split(" ")[0] in SOMEONE:
        return True
    plural = noun in UNCOUNTED or (noun.endswith("s") and not noun.endswith(SINGULAR_S))
    return not plural and not (noun.endswith(("ing", "ed")) and noun not in NOUNS)


def tidied(caption: str) -> str:
    """ "man biking, dark skin tone" -> "man biking with dark skin tone", which can stand inside a longer sentence."""
    return SKIN.sub(r" with \1", caption)


def noun_phrase(caption: str) -> str:
    """ "cat" -> "a cat"; "sunglasses", "flag of Monaco" and whole sentences stay as they are."""
    caption = tidied(caption)
    return f"{article(caption)} {caption}" if countable(caption) and not caption.startswith(ARTICLES) else caption


def described(caption: str, adjective: str) -> str:
    """ "apple", "purple" -> "a purple apple"; an article that is there moves before the adjective."""
    caption = tidied(caption)
    for lead in ARTICLES:
        if caption.startswith(lead):
            lead = "the" if lead == "the " else article(adjective)
            return f"{lead} {adjective} {caption.split(' ', 1)[1]}"
    return f"{article(adjective)} {adjective} {caption}" if countable(caption) else f"{adjective} {caption}"


def plural(caption: str) -> str | None:
    """ "bowl with spoon" -> "bowls with spoon"; None where the plural is not known."""
    caption = re.sub(r"\A(?:an?|the) ", "", caption)
    noun = head(caption)
    if noun in SAME:
        return caption
    words = caption.split(" ")
    if not BARE.match(caption) or not countable(caption) or len(words) > 4 or (words[0] in SOMEONE and len(words) > 1):
        return None
    before = LINKS.split(caption)[0]
    return f"{before[: len(before) - len(noun)]}{_plural(noun)}{caption[len(before) :]}"


def _plural(noun: str) -> str:
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if re.search(r"(?:s|x|z|ch|sh)\Z", noun):
        return noun + "es"
    return noun[:-1] + "ies" if re.search(r"[^aeiou]y\Z", noun) else noun + "s"
