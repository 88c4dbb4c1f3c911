"""From what is said in recordings to the labels that a model can learn from them."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from paretone.data import RATE_HZ, Data, Utterance
from paretone.errors import UserError
from paretone.model.hearing import Recogniser


@dataclass(frozen=True)
class Sample:
    """One recording and its labels; ``prompt`` is what Whisper's decoder is given before them."""

    utterance: Utterance
    labels: tuple[int, ...]
    prompt: tuple[int, ...] = ()


def samples_of(ready: Recogniser, data: Data) -> tuple[list[Sample], list[str]]:
    """What ``ready`` can learn from ``data``, in its order, and notices of what it can't.

    CTC: letters take the case that the vocabulary has; characters that it lacks are dropped. Whisper: texts stay as
    they are, except that a corpus of nothing but capitals is lowered. Left out are recordings longer than the model
    hears in one piece, CTC recordings with fewer frames than their labels need, and texts of which nothing is left.

    Raises:
        UserError: if nothing is left at all, or a multilingual Whisper is not told the language.
    """
    spell = _WhisperSpeller(ready, data) if ready.is_whisper else _CtcSpeller(ready)
    samples: list[Sample] = []
    left_out: Counter[str] = Counter()
    for utterance in data.utterances:
        sample = Sample(utterance, *spell(utterance))
        reason = _obstacle(ready, sample)
        if reason is None:
            samples.append(sample)
        else:
            left_out[reason] += 1
    if not samples:
        raise UserError(_nothing_left(ready, data, spell, left_out))
    return samples, [*spell.notices(), *_notices_of(left_out, len(data.utterances))]


class _CtcSpeller:
    """Texts as labels of a CTC vocabulary of characters."""

    def __init__(self, ready: Recogniser) -> None:
        tokenizer = ready.processor.tokenizer
        special = set(tokenizer.all_special_ids)
        self.letters = {
            token: label
            for token, label in tokenizer.get_vocab().items()
            if len(token) == 1 and label not in special and token != tokenizer.word_delimiter_token
        }
        self.space = tokenizer.get_vocab().get(tokenizer.word_delimiter_token)
        self.dropped: Counter[str] = Counter()

    def __call__(self, utterance: Utterance) -> tuple[tuple[int, ...], tuple[int, ...]]:
        words = [self._word(word) for word in unicodedata.normalize("NFC", utterance.text).split()]
        labels: list[int] = []
        for word in filter(None, words):
            if labels and self.space is not None:
                labels.append(self.space)
            labels += word
        return tuple(labels), ()

    def _word(self, word: str) -> list[int]:
        labels: list[int] = []
        for character in word:
            forms = (character, character.lower(), character.upper())  # the last may be two: ß is SS
            fit = next((form for form in forms if all(letter in self.letters for letter in form)), None)
            if fit is None:
                self.dropped[character] += 1
            else:
                labels += [self.letters[letter] for letter in fit]
        return labels

    def notices(self) -> list[str]:
        return _notice_of_dropped(self.dropped)

    def describe(self) -> str:
        return f"its vocabulary holds {' '.join(sorted(self.letters)[:80]) or 'no single characters'}"


class _WhisperSpeller:
    """Texts as Whisper writes them: a space, the text, the end; before them what its decoder is given."""

    def __init__(self, ready: Recogniser, data: Data) -> None:
        self.ready = ready
        self.tokenizer = ready.processor.tokenizer
        texts = [utterance.text for utterance in data.utterances]
        self.lowers = all(text == text.upper() for text in texts) and any(text != text.lower() for text in texts)
        self.dropped: Counter[str] = Counter()

    def __call__(self, utterance: Utterance) -> tuple[tuple[int, ...], tuple[int, ...]]:
        text = " ".join(unicodedata.normalize("NFC", utterance.text).split())
        text = text.lower() if self.lowers else text
        tokens = self.tokenizer(f" {text}", add_special_tokens=False).input_ids
        written = self.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
        self.dropped += Counter(text.replace(" ", "")) - Counter(written)
        labels = [*tokens, self.ready.model.generation_config.eos_token_id] if written.strip() else []
        return tuple(labels), self._prompt(utterance)

    def _prompt(self, utterance: Utterance) -> tuple[int, ...]:
        """The tokens that decoding begins with, too: start, language and task where it has them, no timestamps."""
        settings = self.ready.model.generation_config
        prompt = [settings.decoder_start_token_id]
        if self.ready.is_multilingual:
            code = self.ready.language_code(utterance.language)
            if code is None:
                raise UserError(
                    f"{utterance.name}: its language is not told, and {self.ready.name} hears several; pass --language"
                )
            prompt += [settings.lang_to_id[f"<|{code}|>"], settings.task_to_id["transcribe"]]
        no_timestamps = getattr(settings, "no_timestamps_token_id", None)
        return (*prompt, *([] if no_timestamps is None else [no_timestamps]))

    def notices(self) -> list[str]:
        lowered = ["the texts are all capitals: lowered, as Whisper writes"] if self.lowers else []
        return lowered + _notice_of_dropped(self.dropped)

    def describe(self) -> str:
        return "its tokenizer writes none of them"


def needed_frames(labels: Sequence[int]) -> int:
    """Frames that CTC needs at least: one for each label, one more for the blank between equal neighbours."""
    return len(labels) + sum(a == b for a, b in pairwise(labels))


def _obstacle(ready: Recogniser, sample: Sample) -> str | None:
    """Why the model can't learn from a sample; None if it can."""
    config: Any = ready.model.config
    if not sample.labels:
        return "have no text left"
    if sample.utterance.duration_s > ready.window_s:
        return f"are longer than {ready.window_s:g} s"
    if ready.is_whisper:
        too_long = len(sample.prompt) + len(sample.labels) - 1 > config.max_target_positions
        return f"have a text of more than {config.max_target_positions} tokens" if too_long else None
    frames = ready.frames(round(sample.utterance.duration_s * RATE_HZ))
    masked = config.mask_time_length if config.apply_spec_augment and config.mask_time_prob > 0 else 0
    return "are too short for their text" if frames < max(needed_frames(sample.labels), masked) else None


def _notice_of_dropped(dropped: Counter[str]) -> list[str]:
    if not dropped:
        return []
    most = ", ".join(f"{character!r} {count}×" for character, count in dropped.most_common(5))
    more = " and others" if len(dropped) > 5 else ""
    return [f"{dropped.total()} characters that the vocabulary lacks were dropped: {most}{more}"]


def _notices_of(left_out: Counter[str], total: int) -> list[str]:
    return [f"{count} of {total} utterances {reason} and were left out" for reason, count in left_out.most_common()]


def _nothing_left(ready: Recogniser, data: Data, spell: Any, left_out: Counter[str]) -> str:
    reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.most_common())
    if list(left_out) == ["have no text left"]:
        return f"{data.name}: nothing of its texts fits {ready.name}; {spell.describe()}"
    return f"{data.name}: {ready.name} can learn from none of its utterances: {reasons}; give other data"
