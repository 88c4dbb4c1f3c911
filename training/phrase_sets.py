"""Writes the embedded sets of synthetic phrases in three languages, which mini_corpus.prepare made.

    python training/phrase_sets.py WORK src/paretone/embedded

``phrases-da``, ``phrases-nl`` and ``phrases-en`` hold number, date and command phrases in two eSpeak NG voices, neither
texts nor voices in any training. Audio is FLAC with 9 significant bits: their noise is 35 dB below the speech.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile

from evaluation_set import describe_set
from phrases import LANGUAGES

STEP = 2.0**-8
ATTRIBUTION = (
    "SYNTHETIC speech: phrases drawn by training/phrases.py, spoken by eSpeak NG. This folder is under the\n"
    "package's own licence, Apache-2.0.\n"
)


def write_set(work: Path, language: str, folder: Path) -> None:
    """Copies the test recordings of one language with fewer bits, and their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for line in (work / f"test-{language}.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        samples, rate_hz = soundfile.read(work / entry["audio"], dtype="float32")
        name = Path(entry["audio"]).name
        coarse = np.round(np.clip(samples, -0.98, 0.98) / STEP) * STEP
        soundfile.write(folder / name, coarse, rate_hz, subtype="PCM_16", compression_level=1.0)
        lines.append({**entry, "audio": name, "licence": "Apache-2.0"})
    describe_set(folder, lines, ATTRIBUTION)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    for language in LANGUAGES:
        write_set(given.work, language, given.out / f"phrases-{language}")


if __name__ == "__main__":
    main()
