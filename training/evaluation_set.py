"""Writes the embedded evaluation sets: digit strings of recordings and of a speaker that training never hears.

    python training/evaluation_set.py CORPUS src/paretone/embedded

``digits`` holds the held-out recordings of the training speakers, ``digits-unheard`` a speaker never heard. Audio is
FLAC at the data set's own 8 kHz with 12 significant bits, which its microphones do not exceed.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from strings import HELD_OUT_TAKES, UNHEARD_SPEAKER, Recording, join, level_to, read_recordings

RATE_HZ = 8_000
STEP = 2.0**-11  # 12 bits with the sign
LICENCE = "CC BY-SA 4.0"
SOURCE = "Free Spoken Digit Dataset, github.com/Jakobovski/free-spoken-digit-dataset"


def in_turn(recordings: list[Recording], rng: np.random.Generator) -> Iterator[Recording]:
    """Every recording once in random order, then again in another: none is used much more than the others."""
    while True:
        for i in rng.permutation(len(recordings)):
            yield recordings[i]


def string_of(recordings: list[Recording], rng: np.random.Generator) -> np.ndarray:
    """One waveform, as loud as speech usually is, with a little noise under everything."""
    wave, _ = join([level_to(r.samples, 0.05 * rng.uniform(0.7, 1.4)) for r in recordings], RATE_HZ, rng)
    wave = wave * np.float32(10 ** (rng.uniform(-6, 3) / 20)) + rng.normal(0, 2e-4, len(wave)).astype(np.float32)
    return np.round(np.clip(wave, -0.98, 0.98) / STEP) * STEP


def write_set(folder: Path, by_speaker: dict[str, list[Recording]], *, strings: int, seed: int) -> None:
    """Writes ``strings`` strings for each speaker and the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for speaker, recordings in sorted(by_speaker.items()):
        rng = np.random.default_rng([seed, *speaker.encode()])
        source = in_turn(recordings, rng)
        for number in range(strings):
            chosen = [next(source) for _ in range(2 + (number * 3 + number // 5) % 5)]
            name = f"{speaker}-{number:03d}.flac"
            soundfile.write(folder / name, string_of(chosen, rng), RATE_HZ, subtype="PCM_16", compression_level=1.0)
            text = " ".join(r.text for r in chosen)
            lines.append({"audio": name, "text": text, "language": "en", "speaker": speaker})
    attribution = (
        f"Made from {SOURCE} (Zohar Jackson and others), {LICENCE}, by joining recordings with gaps, scaling them and\n"
        f"adding faint noise. This folder is under {LICENCE} too.\n"
    )
    describe_set(folder, lines, attribution)


def describe_set(folder: Path, lines: list[dict], attribution: str) -> None:
    """Writes the manifest and the attribution beside the audio, and says how large the set is."""
    manifest = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "manifest.jsonl").write_text(manifest, encoding="utf-8")
    (folder / "ATTRIBUTION.md").write_text(attribution, encoding="utf-8")
    words = sum(len(line["text"].split()) for line in lines)
    size = sum(p.stat().st_size for p in folder.iterdir())
    print(f"{folder}: {len(lines)} utterances, {words} words, {size / 1e6:.2f} MB")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    held_out: dict[str, list[Recording]] = {}
    unheard: dict[str, list[Recording]] = {}
    for r in read_recordings(given.corpus):
        if r.speaker == UNHEARD_SPEAKER:
            unheard.setdefault(r.speaker, []).append(r)
        elif r.take in HELD_OUT_TAKES:
            held_out.setdefault(r.speaker, []).append(r)
    write_set(given.out / "digits", held_out, strings=76, seed=1)
    write_set(given.out / "digits-unheard", unheard, strings=50, seed=1)


if __name__ == "__main__":
    main()
