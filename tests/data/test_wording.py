"""What captions are told apart, one defect each."""

import pytest

from diorama.data.wording import caption_fault, saying, words

FAULTS = {
    "empty": ["", "   "],
    "file name": [
        "IMG_2041.jpg",
        "DSC00123",
        "Screenshot 3",
        "20190412_133702",
        "a8f39-00042",
        "cat_final.PNG",
        "0f" * 16,
        "untitled-1.webp",
    ],
    "not text": ["#### 8 ####", "$$ 1/2 $$", "<div class=x>cat</div>", "caf\ufffd au lait", "12:30 - 14:45"],
    "boilerplate": [
        "Image may contain: food",
        "click to enlarge",
        "red apple, stock photo",
        "untitled",
        "n/a",
        "see www.shop.example",
    ],
}
SOUND = [
    "ox",
    "a red apple",
    "keycap: #",
    "1 apple",
    "eight o’clock",
    "picture of a dog",
    "image of an old camera",
    "猫",
    "пёс",
    "Boeing 747",
    "test tube",
]


@pytest.mark.parametrize(("fault", "text"), [(fault, text) for fault, texts in FAULTS.items() for text in texts])
def test_a_defect_is_told(fault, text):
    assert caption_fault(text) == fault


@pytest.mark.parametrize("text", SOUND)
def test_a_sound_caption_has_none(text):
    assert caption_fault(text) == ""


def test_words_are_counted_in_any_script():
    assert [words(text) for text in ("", "a red apple", "l'été", "赤いリンゴ")] == [0, 3, 2, 5]


def test_equal_captions_say_the_same_and_a_label_says_nothing():
    assert saying("A red  apple!", None) == saying("a red apple", "fruit") != saying("a green apple", None)
    assert saying("Red apple", "red_apple") == 0
