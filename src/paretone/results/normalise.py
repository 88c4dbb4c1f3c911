"""Named, versioned text normalisers: what counts as the same word."""

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files

from paretone.errors import UserError, did_you_mean

Normaliser = Callable[[str], str]

AUTO = "auto"
WHISPER_ENGLISH = "whisper-english/1"
DIGITS = "digits/1"
BASIC = "basic/1"
SLAM = "slam/1"

_DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DIGIT_FORMS = frozenset((*_DIGIT_WORDS, "oh", "o", *"0123456789"))


@cache
def _whisper_english() -> Normaliser:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    spelling = files("paretone.results").joinpath("english_spelling.json").read_text(encoding="utf-8")
    normalise = EnglishTextNormalizer(json.loads(spelling))
    return lambda text: normalise(text).strip()


@cache
def _digits() -> Normaliser:
    english = _whisper_english()

    def normalise(text: str) -> str:
        return " ".join(re.sub(r"\d", lambda digit: f" {_DIGIT_WORDS[int(digit[0])]} ", english(text)).split())

    return normalise


@cache
def _basic() -> Normaliser:
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer

    normalise = BasicTextNormalizer(remove_diacritics=False, split_letters=False)
    return lambda text: normalise(text).strip()


@cache
def _slam() -> Normaliser:
    outside = re.compile(r"[^\w\s']|(?<!\w)'|'(?!\w)")

    def normalise(text: str) -> str:
        joined = unicodedata.normalize("NFC", text.lower()).replace("\u2019", "'")  # ’, as typesetters write it
        return " ".join(outside.sub(" ", joined).split())

    return normalise


_MAKERS: dict[str, Callable[[], Normaliser]] = {
    WHISPER_ENGLISH: _whisper_english,
    DIGITS: _digits,
    BASIC: _basic,
    SLAM: _slam,
}
NAMES = (AUTO, *(name.partition("/")[0] for name in _MAKERS))


def normaliser(name: str) -> Normaliser:
    """The function behind a name, with or without its version.

    ``whisper-english`` is OpenAI's English normaliser with its spelling map. It also writes numbers in figures and
    joins them: "three seven zero" becomes the one word "370". ``digits`` is the same, then says every figure as one
    word again: "370" and "three seven zero" become three words. ``basic`` lowers case and drops punctuation and
    bracketed remarks; letters such as å, ø, æ, é and ë stay. ``slam`` is the filter of arXiv 2603.27981: lower case,
    and everything but word characters, spaces and apostrophes inside a word becomes a space; bracketed remarks keep
    their words.
    """
    return _MAKERS[resolve(name)]()


def resolve(name: str) -> str:
    """``name`` with its version: "basic" is "basic/1".

    Raises:
        UserError: if there is no such normaliser, or not in that version.
    """
    for known in _MAKERS:
        if name in (known, known.partition("/")[0]):
            return known
    raise UserError(f"no normaliser {name!r}; there are {', '.join(NAMES)}{did_you_mean(name, NAMES)}")


def choose(name: str, references: Sequence[str], languages: Sequence[str | None]) -> list[str]:
    """The versioned normaliser of each utterance.

    ``auto`` takes Whisper's English one for language "en" and the basic one for every other or unknown language. Where
    most words of the texts that are English or of unknown language are digits, those texts are digit strings and take
    ``digits``: joined figures would make each whole string one word, and its word error rate meaningless.
    """
    if name != AUTO:
        return [resolve(name)] * len(references)
    spoken = [
        text for text, language in zip(references, languages, strict=True) if language is None or _is_english(language)
    ]
    english, unknown = (DIGITS, DIGITS) if _are_digit_strings(spoken) else (WHISPER_ENGLISH, BASIC)
    return [unknown if each is None else english if _is_english(each) else BASIC for each in languages]


def _is_english(language: str) -> bool:
    return re.split(r"[-_]", language.lower())[0] in ("en", "eng", "english")


def _are_digit_strings(references: Sequence[str]) -> bool:
    words = [word for text in references for word in re.findall(r"\w+", text.lower())]
    return 2 * sum(word in _DIGIT_FORMS or word.isdecimal() for word in words) > len(words)
