from diorama.worlds.alt_text import JUNK, WRONG, alt_text
from diorama.worlds.captions import caption, parse
from diorama.worlds.descriptions import Said
from diorama.worlds.scene import Rules, scene

RULES = Rules(shapes=("circle", "star"), colours=("red", "blue"), subjects=0.2)
N = 1500


def said(words):
    try:
        return parse(words)
    except ValueError:
        return None  # junk alone


def test_without_mistakes_it_is_the_form_alt():
    for i in range(50):
        assert alt_text(scene(3, i), wrong=0.0, junk=0.0) == caption(scene(3, i), form="alt")


def test_so_many_say_nothing_and_so_many_things_are_wrong():
    scenes = [scene(3, i, Rules(most=1, subjects=0.0)) for i in range(N)]
    told = [said(alt_text(s)) for s in scenes]
    empty = sum(d is None for d in told) / N
    assert abs(empty - JUNK) < 4 * (JUNK * (1 - JUNK) / N) ** 0.5
    # of one thing, half of the mistakes are in its shape, which is always named
    wrong = sum(d.things[0].shape != s.named[0].shape for d, s in zip(told, scenes, strict=True) if d) / (N * (1 - empty))
    assert abs(wrong - WRONG / 2) < 4 * (WRONG / 2 / N) ** 0.5


def test_it_is_wrong_in_one_way_and_in_words_that_the_rules_have():
    for i in range(100):
        s = scene(4, i, RULES)
        told = said(alt_text(s, wrong=1.0, junk=0.0, rules=RULES))
        assert told == said(alt_text(s, wrong=1.0, junk=0.0, rules=RULES))
        for thing in told.things if s.named else ():
            assert thing.shape in RULES.shapes and thing.colour in (None, *RULES.colours)
            kinds = [Said(other.shape, thing.colour and other.colour) for other in s.named]
            assert any((thing.shape != kind.shape) + (thing.colour != kind.colour) <= 1 for kind in kinds)
