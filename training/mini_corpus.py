"""The corpus of mini-whisper: Danish, Dutch and English, real where there is any, else synthetic (eSpeak NG).

``prepare`` writes audio.i16 and index.jsonl as open_corpus does, with a language in each line, and for each language
dev-xx.jsonl and test-xx.jsonl with FLAC files, voices that training does not hear and phrases that it does not hold,
and train-xx.jsonl for trainings that read files. English has most speech, Danish least, as in arXiv 2603.27981.
"""

import json
import re
import unicodedata
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from open_corpus import VARIANTS, Spoken, _to_int16, read_manifest, split_real, spoken_span, synthesise
from phrases import LANGUAGES, phrase
from strings import HELD_OUT_TAKES, RATE_HZ, UNHEARD_SPEAKER, Recording, join, level_to, read_recordings, resample

LONGEST_S = 5.8
LETTERS = "'abcdefghijklmnopqrstuvwxyzàáåæçèéêëíïñóôöøúü"
PHRASES = {"en": 6000, "nl": 4000, "da": 1500}
SENTENCES = {"en": 1000, "nl": 700, "da": 250}
TRAIN_FILES = {"en": 6400, "nl": 4000, "da": 1600}
DIGIT_STRINGS = 800  # of TRAIN_FILES["en"], joined from real recordings
HELD_OUT = {"test": 120, "dev": 60}
VOICES = {"da": ["da"], "nl": ["nl"], "en": ["en-us", "en", "en-gb-scotland", "en-gb-x-rp"]}
UNHEARD = {"test": ("linda", "quincy"), "dev": ("shelby", "marco")}
TEXTS = {
    "da": ("da__commonvoice_sentences.txt",),
    "nl": ("nl__ud_lassysmall.txt", "nl__ntrex.txt"),
    "en": ("en__ud_ewt_all.txt",),
}


def clean(text: str) -> str | None:
    """Lower case without punctuation; None where something can't be said letter by letter."""
    text = unicodedata.normalize("NFC", text).replace("’", "'").lower()
    words = [word.strip("'") for word in re.sub(r"[-–—,.;:!?\"“”„()«»]", " ", text).split()]
    said = " ".join(word for word in words if word)
    return said if said and set(said) <= set(LETTERS + " ") else None


def sentences(folder: Path, language: str, *, longest: int) -> list[str]:
    """Distinct clean sentences of the text files, in their order."""
    found: dict[str, None] = {}
    for name in TEXTS[language]:
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            line = re.sub(r" (n't|'s|'re|'ve|'ll|'d|'m)\b", r"\1", line)  # the tokenised files write "do n't"
            for part in re.split(r"(?<=[.!?;])\s+", line):
                said = clean(part)
                if said and 8 <= len(said) <= longest and " " in said:
                    found[said] = None
    return list(found)


def plan(corpus: Path, language: str, seed: int) -> dict[str, list[str]]:
    """Texts of train, dev and test; no text is in two of them."""
    rng = np.random.default_rng([seed, LANGUAGES.index(language)])
    drawn: dict[str, None] = {}
    total = PHRASES[language] + sum(HELD_OUT.values())
    for _ in range(100 * total):
        drawn[phrase(language, rng)] = None
        if len(drawn) >= total:
            break
    texts = rng.permutation(list(drawn)).tolist()
    parts = {}
    for part, count in HELD_OUT.items():
        parts[part], texts = texts[:count], texts[count:]
    written = sentences(corpus / "text", language, longest=60)
    chosen = rng.permutation(written)[: SENTENCES[language]].tolist()
    parts["train"] = rng.permutation(texts + chosen).tolist()
    return parts


def speak(texts: list[str], language: str, part: str, seed: list[int]) -> list[Spoken]:
    """Texts in random voices of the part."""
    rng = np.random.default_rng(seed)
    variants = UNHEARD.get(part) or VARIANTS.split()
    found = []
    for text in texts:
        voice = f"{VOICES[language][rng.integers(len(VOICES[language]))]}+{variants[rng.integers(len(variants))]}"
        spoken = synthesise(text, voice, rng)
        if spoken and len(spoken.samples) < LONGEST_S * RATE_HZ:
            found.append(replace(spoken, part=part))
    return found


def training_digits(corpus: Path) -> list[Recording]:
    """Spoken digits that no test set holds."""
    return [r for r in read_recordings(corpus) if r.speaker != UNHEARD_SPEAKER and r.take not in HELD_OUT_TAKES]


def digit_strings(corpus: Path, seed: int) -> list[Spoken]:
    """Two to six of a speaker's ``training_digits`` behind each other."""
    rng = np.random.default_rng([seed, 9])
    by_speaker: dict[str, list[Recording]] = {}
    for r in training_digits(corpus):
        by_speaker.setdefault(r.speaker, []).append(r)
    found: list[Spoken] = []
    while len(found) < DIGIT_STRINGS:
        speaker = rng.choice(sorted(by_speaker))
        pool = by_speaker[speaker]
        chosen = [pool[i] for i in rng.integers(len(pool), size=rng.integers(2, 7))]
        wave, _ = join([level_to(resample(r.samples, r.rate_hz, RATE_HZ), 0.05) for r in chosen], RATE_HZ, rng)
        if len(wave) < LONGEST_S * RATE_HZ:
            found.append(Spoken(_to_int16(wave), " ".join(r.text for r in chosen), str(speaker), "train", False))
    return found


def real_english(corpus: Path) -> list[Spoken]:
    """Single digits, and short sentences of open_corpus's training speakers."""
    found = [
        Spoken(_to_int16(resample(r.samples, r.rate_hz, RATE_HZ)), r.text, r.speaker, "train", False)
        for r in training_digits(corpus)
    ]
    for entry in split_real(corpus, 0)["train-real"]:
        if entry["duration_s"] <= LONGEST_S:
            samples, rate_hz = soundfile.read(entry["audio"], dtype="float32")
            text = entry["text"].lower()
            found.append(Spoken(_to_int16(resample(samples, rate_hz, RATE_HZ)), text, entry["speaker"], "train", False))
    return found


def prepare(corpus: Path, work: Path, *, seed: int) -> None:
    """Everything below ``work``."""
    work.mkdir(parents=True, exist_ok=True)
    jobs = []
    for language in LANGUAGES:
        for part, texts in plan(corpus, language, seed).items():
            for i in range(0, len(texts), 200):
                how = [seed, 7, LANGUAGES.index(language), ("train", "dev", "test").index(part), i]
                jobs.append((language, part, texts[i : i + 200], how))
    with ProcessPoolExecutor(max_tasks_per_child=1) as pool:  # eSpeak remembers what it said before
        made = list(pool.map(speak, *zip(*((t, g, p, s) for g, p, t, s in jobs), strict=True)))
    spoken: dict[tuple[str, str], list[Spoken]] = {}
    for (language, part, _, _), found in zip(jobs, made, strict=True):
        spoken.setdefault((language, part), []).extend(found)
    spoken["en", "train"] += real_english(corpus)
    _write_index(work, spoken)
    for (language, part), found in spoken.items():
        chosen = found
        if part == "train":
            rng = np.random.default_rng([seed, 8, LANGUAGES.index(language)])
            long_enough = [each for each in found if len(each.samples) > RATE_HZ]
            strings = digit_strings(corpus, seed) if language == "en" else []
            pool = [long_enough[i] for i in rng.permutation(len(long_enough))[: TRAIN_FILES[language] - len(strings)]]
            chosen = [(pool + strings)[i] for i in rng.permutation(len(pool) + len(strings))]
        _write_files(work, f"{part}-{language}", chosen, language)


def _write_index(work: Path, spoken: dict[tuple[str, str], list[Spoken]]) -> None:
    position = 0
    with (work / "audio.i16").open("wb") as audio, (work / "index.jsonl").open("w", encoding="utf-8") as index:
        for (language, part), found in spoken.items():
            for each in found if part != "test" else []:
                first, last = spoken_span(each.samples)
                audio.write(each.samples.tobytes())
                line = {"start": position, "length": len(each.samples), "first": first, "last": last}
                line |= {"text": each.text, "speaker": each.speaker, "part": part, "synthetic": each.synthetic}
                index.write(json.dumps({**line, "language": language, "word_starts": each.word_starts}) + "\n")
                position += len(each.samples)


def _write_files(work: Path, name: str, found: list[Spoken], language: str) -> None:
    folder = work / name
    folder.mkdir(exist_ok=True)
    with (work / f"{name}.jsonl").open("w", encoding="utf-8") as manifest:
        for number, each in enumerate(found):
            path = folder / f"{number:04d}.flac"
            soundfile.write(path, each.samples, RATE_HZ)
            line = {"audio": f"{name}/{path.name}", "text": each.text, "language": language, "speaker": each.speaker}
            line |= {"duration_s": round(len(each.samples) / RATE_HZ, 3), "synthetic": each.synthetic}
            manifest.write(json.dumps(line, ensure_ascii=False) + "\n")
    seconds = sum(len(each.samples) for each in found) / RATE_HZ
    print(f"{name}: {len(found)} utterances, {seconds / 3600:.2f} h", flush=True)


__all__ = ["LETTERS", "clean", "prepare", "read_manifest", "sentences"]
