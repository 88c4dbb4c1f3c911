"""Numbers and phrases of the mini models' speech, against words that people wrote down."""

import numpy as np
import pytest

from phrases import LANGUAGES, number, phrase


@pytest.mark.parametrize(
    ("value", "danish", "dutch", "english"),
    [
        (0, "nul", "nul", "zero"),
        (13, "tretten", "dertien", "thirteen"),
        (20, "tyve", "twintig", "twenty"),
        (21, "enogtyve", "eenentwintig", "twenty one"),
        (52, "tooghalvtreds", "tweeënvijftig", "fifty two"),
        (93, "treoghalvfems", "drieënnegentig", "ninety three"),
        (100, "et hundrede", "honderd", "one hundred"),
        (348, "tre hundrede og otteogfyrre", "driehonderd achtenveertig", "three hundred and forty eight"),
        (1000, "et tusind", "duizend", "one thousand"),
        (2006, "to tusind og seks", "tweeduizend zes", "two thousand and six"),
        (
            7511,
            "syv tusind fem hundrede og elleve",
            "zevenduizend vijfhonderd elf",
            "seven thousand five hundred and eleven",
        ),
    ],
)
def test_numbers_are_said_as_people_say_them(value: int, danish: str, dutch: str, english: str) -> None:
    assert [number(value, language) for language in ("da", "nl", "en")] == [danish, dutch, english]


@pytest.mark.parametrize("language", LANGUAGES)
def test_phrases_are_words_and_follow_the_seed(language: str) -> None:
    drawn = [phrase(language, np.random.default_rng(seed)) for seed in range(300)]
    assert drawn == [phrase(language, np.random.default_rng(seed)) for seed in range(300)]
    assert len(set(drawn)) > 150
    for text in drawn:
        assert text == text.lower()
        assert text.replace(" ", "").replace("'", "").isalpha()
