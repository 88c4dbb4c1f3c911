"""The corpus of the open-vocabulary recognisers: real and synthetic English speech, split by speaker.

``prepare`` writes audio.i16 (16 kHz, one memory map), index.jsonl (one utterance a line: where it lies, its text and
speaker, between which samples it is spoken and, for synthetic speech, at which sample each word begins) and the
manifests that `paretone evaluate --data` reads.
"""

import json
import re
import unicodedata
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from espeak import the_synthesiser
from strings import RATE_HZ, level_to

LONGEST_S = 12.0
TEST_SPEAKERS, DEV_SPEAKERS = 16, 6
TEST_SOURCES = ("LibriSpeech test-clean", "LibriSpeech test-other", "LibriSpeech dev-clean")
WINDOW_S = 8.0  # what the small Whisper hears; longer test utterances get a manifest of their own
TEXTS = ("en__ntrex.txt", "en__ud_ewt_all.txt", "en__wikitext2_valid_test.txt")
SYNTHETIC_TEST_SENTENCES = 100

ACCENTS = "en en-us en-us en-gb-scotland en-gb-x-rp en-gb-x-gbclan en-gb-x-gbcwmd en-us-nyc en-029"
VARIANTS = (
    "m1 m2 m3 m4 m5 m6 m7 f1 f2 f3 f4 f5 Andy Annie Gene Lee Mario Michael Denis Jacky Alicia Andrea adam anika "
    "antonio aunty belinda benjamin boris caleb david ed edward grandma grandpa gustave ian iven john marcelo max paul "
    "rob steph travis victor klatt2 klatt4"
)
UNHEARD_VOICES = ("en-us+linda", "en+quincy")  # for the synthetic test; neither variant is in VARIANTS


@dataclass(frozen=True)
class Spoken:
    """One utterance as it comes into the index."""

    samples: np.ndarray  # int16, 16 kHz
    text: str
    speaker: str
    part: str  # train, dev or test
    synthetic: bool
    word_starts: list[int] | None = None


def normalise(text: str) -> str | None:
    """Upper case, letters and apostrophes only; None where figures or other signs would have to be read out."""
    text = unicodedata.normalize("NFKC", text).replace("’", "'").replace(" '", "'").upper()
    text = re.sub(r"[-–—,.;:!?\"“”()]", " ", text)
    words = [word.strip("'") for word in text.split()]
    clean = " ".join(word for word in words if word)
    return clean if re.fullmatch(r"[A-Z' ]+", clean) else None


def read_manifest(corpus: Path, name: str) -> list[dict]:
    """The entries of one manifest of the corpus with a text, ``audio`` made absolute."""
    lines = (corpus / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    return [e | {"audio": str((corpus / e["audio"]).resolve())} for e in entries if e["text"]]


def split_real(corpus: Path, seed: int) -> dict[str, list[dict]]:
    """Manifest entries by part. Whole speakers of speechocean762 are drawn for test and dev."""
    rng = np.random.default_rng([seed, 762])
    sentences = read_manifest(corpus, "en-speechocean762")
    speakers = rng.permutation(sorted({e["speaker"] for e in sentences}))
    test, dev = set(speakers[:TEST_SPEAKERS]), set(speakers[TEST_SPEAKERS : TEST_SPEAKERS + DEV_SPEAKERS])
    parts: dict[str, list[dict]] = {"train-real": [], "test": [], "dev": [], "test-librispeech": [], "long": []}
    for e in sentences:
        parts["test" if e["speaker"] in test else "dev" if e["speaker"] in dev else "train-real"].append(e)
    for e in read_manifest(corpus, "en-librispeech"):
        parts["test-librispeech" if e["source"] in TEST_SOURCES else "train-real"].append(e)
    parts["train-real"] += read_manifest(corpus, "en-ljspeech")
    for part, entries in parts.items():
        parts[part] = [e | {"text": clean} for e in entries if (clean := normalise(e["text"]))]
    for part in ("test", "dev", "test-librispeech"):
        parts["long"] += [e for e in parts[part] if e["duration_s"] > WINDOW_S]
        parts[part] = [e for e in parts[part] if e["duration_s"] <= WINDOW_S]
    parts["train-real"] = [e for e in parts["train-real"] if e["duration_s"] <= LONGEST_S]
    return parts


def short_sentences(folder: Path) -> list[str]:
    """Distinct sentences of 8 to 90 characters and at least two words from the text files, in their order."""
    found: dict[str, None] = {}
    for name in TEXTS:
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            line = re.sub(r" (n't|'s|'re|'ve|'ll|'d|'m)\b", r"\1", line)  # the tokenised files write "do n't"
            for sentence in re.split(r"(?<=[.!?;])\s+", line):
                clean = normalise(sentence)
                if clean and 8 <= len(clean) <= 90 and " " in clean:
                    found[clean] = None
    return list(found)


def synthesise(text: str, voice: str, rng: np.random.Generator) -> Spoken | None:
    """``text`` in ``voice`` at a random rate and pitch; None where it gets too long."""
    speaker = the_synthesiser()
    samples, words = speaker.speak(
        text.lower(),
        voice,
        words_per_minute=int(rng.uniform(95, 175)),
        pitch=int(rng.uniform(25, 80)),
        pitch_range=int(rng.uniform(25, 75)),
    )
    at_16k = soxr.resample(samples.astype(np.float32) / 32768, speaker.rate_hz, RATE_HZ, quality="LQ")
    if not 0.4 < len(at_16k) / RATE_HZ < WINDOW_S:
        return None
    starts_by_character = dict(words)
    expected = [0, *(i + 1 for i, c in enumerate(text) if c == " ")]
    starts = [int(starts_by_character[i] * RATE_HZ) for i in expected if i in starts_by_character]
    complete = len(starts) == len(expected) and starts == sorted(starts)
    part = "test" if voice in UNHEARD_VOICES else "train"
    return Spoken(_to_int16(at_16k), text, f"espeak-{voice}", part, True, starts if complete else None)


def _to_int16(samples: np.ndarray) -> np.ndarray:
    return np.round(np.clip(level_to(samples.astype(np.float32), 0.06), -1, 1) * 32767).astype(np.int16)


def _synthetic_batch(texts: list[str], seed: list[int]) -> list[Spoken]:
    rng = np.random.default_rng(seed)
    accents, variants = ACCENTS.split(), VARIANTS.split()
    found = []
    for text in texts:
        voice = f"{accents[rng.integers(len(accents))]}+{variants[rng.integers(len(variants))]}"
        if spoken := synthesise(text, voice, rng):
            found.append(spoken)
    return found


def _real_batch(entries: list[dict], part: str) -> list[Spoken]:
    found = []
    for e in entries:
        samples, rate_hz = soundfile.read(e["audio"], dtype="float32")
        at_16k = samples if rate_hz == RATE_HZ else soxr.resample(samples, rate_hz, RATE_HZ)
        found.append(Spoken(_to_int16(at_16k), e["text"], e["speaker"], part, False))
    return found


def spoken_span(samples: np.ndarray) -> tuple[int, int]:
    """First and last sample that are within 30 dB of the loud parts (20 ms frames)."""
    frame = RATE_HZ // 50
    power = (samples[: len(samples) // frame * frame].astype(np.float32).reshape(-1, frame) ** 2).mean(axis=1)
    loud = np.flatnonzero(power > np.quantile(power, 0.95) * 1e-3)
    return (int(loud[0]) * frame, int(loud[-1] + 1) * frame) if len(loud) else (0, len(samples))


def write_manifest(path: Path, entries: list[dict]) -> None:
    """Writes ``entries`` as `paretone evaluate` reads them."""
    kept = ({key: e[key] for key in ("audio", "text", "language", "speaker", "duration_s")} for e in entries)
    path.write_text("".join(json.dumps(e) + "\n" for e in kept), encoding="utf-8")
    hours = sum(e["duration_s"] for e in entries) / 3600
    print(f"{path.name}: {len(entries)} utterances, {len({e['speaker'] for e in entries})} speakers, {hours:.2f} h")


def _write_synthetic_test(folder: Path, sentences: list[str], seed: int) -> None:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng([seed, 100])
    entries: list[dict] = []
    for number, text in enumerate(sentences):
        spoken = synthesise(text, UNHEARD_VOICES[number % 2], rng)
        if spoken:
            path = folder / f"{number:03d}.flac"
            soundfile.write(path, spoken.samples, RATE_HZ)
            seconds = len(spoken.samples) / RATE_HZ
            entries.append({"audio": str(path.resolve()), "text": text, "language": "en", "speaker": spoken.speaker})
            entries[-1]["duration_s"] = seconds
    write_manifest(folder.parent / "test-synthetic.jsonl", entries)


def prepare(corpus: Path, work: Path, *, seed: int) -> None:
    """Writes everything that training reads, and the manifests, into ``work``."""
    work.mkdir(parents=True, exist_ok=True)
    parts = split_real(corpus, seed)
    for name, entries in parts.items():
        write_manifest(work / (f"{name}.jsonl" if name != "long" else "test-long.jsonl"), entries)
    rng = np.random.default_rng([seed, 1])
    sentences = [str(s) for s in rng.permutation(short_sentences(corpus / "text"))]
    _write_synthetic_test(work / "synthetic-test", sentences[:SYNTHETIC_TEST_SENTENCES], seed)
    transcripts = [e["text"] for e in parts["train-real"] if len(e["text"]) <= 90]
    texts = sentences[SYNTHETIC_TEST_SENTENCES:] + [str(t) for t in rng.permutation(transcripts)]
    unseen = set(sentences[:SYNTHETIC_TEST_SENTENCES])
    texts = [t for t in texts if t not in unseen]
    heard = set(texts) | {e["text"] for e in parts["train-real"]}
    for name in ("test", "dev", "test-librispeech"):
        known = sum(e["text"] in heard for e in parts[name])
        print(f"{name}: {known} of {len(parts[name])} sentences also occur in training", flush=True)
    jobs = [(_real_batch, parts["train-real"][i : i + 200], "train") for i in range(0, len(parts["train-real"]), 200)]
    jobs.append((_real_batch, parts["dev"], "dev"))
    jobs += [(_synthetic_batch, texts[i : i + 200], [seed, 2, i]) for i in range(0, len(texts), 200)]
    with (
        ProcessPoolExecutor(max_tasks_per_child=1) as pool,  # eSpeak remembers what it said before
        (work / "audio.i16").open("wb") as audio,
        (work / "index.jsonl").open("w", encoding="utf-8") as index,
    ):
        _write_all((pool.submit(*job) for job in jobs), audio, index)


def _write_all(results, audio, index) -> None:
    position, seconds = 0, {True: 0.0, False: 0.0}
    for result in list(results):
        for spoken in result.result():
            first, last = spoken_span(spoken.samples)
            audio.write(spoken.samples.tobytes())
            line = {"start": position, "length": len(spoken.samples), "first": first, "last": last, "text": spoken.text}
            line |= {"speaker": spoken.speaker, "part": spoken.part, "synthetic": spoken.synthetic}
            index.write(json.dumps(line | {"word_starts": spoken.word_starts}) + "\n")
            position += len(spoken.samples)
            seconds[spoken.synthetic] += len(spoken.samples) / RATE_HZ
    print(f"real {seconds[False] / 3600:.2f} h, synthetic {seconds[True] / 3600:.2f} h", flush=True)
