"""Writes digit strings to train on: a manifest and its audio, from the recordings that no evaluation set holds.

    python training/digit_data.py CORPUS OUT [--strings 600] [--seed 2]

CORPUS is as for training/digits.py. The strings are made as those of the embedded evaluation sets are, of the
training takes of the training speakers, evenly many for each.
"""

import argparse
from pathlib import Path

from evaluation_set import write_set
from strings import HELD_OUT_TAKES, UNHEARD_SPEAKER, Recording, read_recordings


def training_recordings(corpus: Path) -> dict[str, list[Recording]]:
    """By speaker, the recordings that training/digits.py trains on."""
    found: dict[str, list[Recording]] = {}
    for r in read_recordings(corpus):
        if r.speaker != UNHEARD_SPEAKER and r.take not in HELD_OUT_TAKES:
            found.setdefault(r.speaker, []).append(r)
    return found


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--strings", type=int, default=600)
    parser.add_argument("--seed", type=int, default=2)
    given = parser.parse_args()
    by_speaker = training_recordings(given.corpus)
    each, rest = divmod(given.strings, len(by_speaker))
    if rest or not each:
        parser.error(f"--strings {given.strings} does not give {len(by_speaker)} speakers evenly many")
    write_set(given.out, by_speaker, strings=each, seed=given.seed)


if __name__ == "__main__":
    main()
