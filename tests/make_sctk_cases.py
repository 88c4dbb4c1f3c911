"""Make tests/sctk_cases.json from scratch: transcripts, and what NIST's sclite and sc_stats say about them.

    apt-get install sctk
    python tests/make_sctk_cases.py          three minutes on one core

Real transcripts come from the embedded models compressed in several ways. The corner cases are made by hand, and where
many alignments cost the same by chance. sc_stats crashes on two systems without any error: there is no such case.
In the file a transcript that equals its reference is null.
"""

import argparse
import itertools
import json
import random
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import paretone
from paretone.results import normaliser, read_transcripts

SCTK = Path("/usr/lib/sctk/bin")
CASES = Path(__file__).with_name("sctk_cases.json")
WAYS: dict[str, dict[str, dict[str, Any]]] = {
    "digits-hubert": {
        "cluster-40": {"method": "cluster", "sparsity": 0.4},
        "mean-50": {"method": "cluster", "sparsity": 0.5, "settings": {"outgoing": "mean"}},
        "magnitude-60": {"method": "magnitude", "sparsity": 0.6},
        "cluster-ffn-60": {"method": "cluster", "sparsity": 0.6, "units": "ffn"},
    },
    "digits-whisper": {
        "cluster-20": {"method": "cluster", "sparsity": 0.2},
        "mean-ffn-40": {"method": "cluster", "sparsity": 0.4, "units": "ffn", "settings": {"outgoing": "mean"}},
        "magnitude-ffn-60": {"method": "magnitude", "sparsity": 0.6, "units": "ffn"},
        "random-ffn-40": {"method": "random", "sparsity": 0.4, "units": "ffn"},
    },
}
DATA = ("digits", "digits-unheard")
JOINED = 5  # utterances in one, for references with many segments
SAID = ["one two three four five", "six seven", "eight nine zero one two three", "four"]
BY_HAND = {
    "right": SAID,
    "some wrong": ["one two four five", "six seven", "eight nine zero two three", "five"],
    "the same wrong": ["one two four five", "six seven", "eight nine zero two three", "five"],
    "silent": ["", "", "", ""],
    "all wrong": ["x x x x x", "x x", "x x x x x x", "x"],
    "one word too many": ["one two x three four five", "x six seven y", "eight nine zero one two three", "four z z"],
    "other word too many": ["one two x three four five", "six seven", "eight nine zero one two three z", "z four"],
    "one segment": ["one two three four five", "six seven", "eight nine zero one two three", "five"],
    "three segments of one": ["one two two four five", "six six", "eight nine zero one two three", "five"],
}
EMPTY_REFERENCE = {
    "references": ["one two", "", "three"],
    "systems": {"a": ["one two", "x", "three"], "b": ["one", "", "three"], "c": ["one", "x y", "three"]},
}

Case = dict[str, Any]


def main() -> None:
    """Write the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=CASES)
    out = parser.parse_args().out
    cases = {"by hand": {"references": SAID, "systems": BY_HAND}, "empty reference": EMPTY_REFERENCE}
    cases["by chance"] = chance_case(random.Random(0))
    for model in WAYS:
        cases |= real_cases(model)
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(cases.values()):
            case["pairs"] = list(sctk_verdicts(case, Path(folder) / str(number)))
    out.write_text(json.dumps({name: thinned(case) for name, case in cases.items()}, indent=0) + "\n")
    print(f"{sum(len(case['pairs']) for case in cases.values())} pairs")


def chance_case(rng: random.Random) -> Case:
    """Sentences of few words, and four systems that hear about two thirds of them."""

    def hear(word: str) -> str:
        return rng.choices([word, rng.choice("abcd"), "", f"{word} d"], (6, 1, 1, 1))[0]

    said = [rng.choices("abcd", k=rng.randint(1, 20)) for _ in range(40)]
    systems = {f"s{number}": [" ".join(filter(None, map(hear, words))) for words in said] for number in range(4)}
    return {"references": [" ".join(words) for words in said], "systems": systems}


def thinned(case: Case) -> Case:
    """The case as it is written."""
    said = case["references"]
    pairs = {way: zip(said, texts, strict=True) for way, texts in case["systems"].items()}
    return case | {"systems": {way: [None if a == b else b for a, b in pairs[way]] for way in pairs}}


def read_cases(file: Path = CASES) -> dict[str, Case]:
    """The cases as they were made."""
    cases = json.loads(file.read_text())
    for case in cases.values():
        for way, texts in case["systems"].items():
            pairs = zip(case["references"], texts, strict=True)
            case["systems"][way] = [said if heard is None else heard for said, heard in pairs]
    return cases


def real_cases(model: str) -> dict[str, Case]:
    """What a model and its compressions hear in both data sets, and in the second one with utterances joined."""
    with tempfile.TemporaryDirectory() as name:
        folders = {"original": Path(model)} | {way: Path(name) / way for way in WAYS[model]}
        for way, words in WAYS[model].items():
            paretone.compress(model, folders[way], **words)
        cases = {f"{model} on {data}": transcribed(folders, data) for data in DATA}
    last = cases[f"{model} on {DATA[-1]}"]
    systems = {way: joined(texts) for way, texts in last["systems"].items()}
    return cases | {f"{model} on {DATA[-1]}, joined": {"references": joined(last["references"]), "systems": systems}}


def transcribed(folders: dict[str, Path], data: str) -> Case:
    """The normalised references of a data set, and what each model hears."""
    normalise = normaliser("digits")
    systems = {}
    references: list[str] = []
    for way, folder in folders.items():
        with tempfile.TemporaryDirectory() as out:
            paretone.evaluate(folder, data, out=Path(out) / "result")
            heard = read_transcripts(Path(out) / "result")
        references = [normalise(each.text) for each in heard]
        systems[way] = [normalise(each.hypothesis) for each in heard]
    return {"references": references, "systems": systems}


def joined(texts: Sequence[str]) -> list[str]:
    """Texts one after the other, `JOINED` at a time."""
    return [" ".join(" ".join(texts[first : first + JOINED]).split()) for first in range(0, len(texts), JOINED)]


def sctk_verdicts(case: Case, folder: Path) -> Iterator[dict[str, Any]]:
    """What sc_stats says of each pair of systems: segments, Z as printed, and its verdict."""
    folder.mkdir()
    write_trn(case["references"], folder / "reference.trn")
    aligned = {way: sclite(texts, folder, f"s{number}") for number, (way, texts) in enumerate(case["systems"].items())}
    for first, second in itertools.combinations(aligned, 2):
        said = subprocess.run(
            [SCTK / "sc_stats", "-p", "-t", "mapsswe", "-v", "-n", "-"],
            input=aligned[first] + aligned[second],
            capture_output=True,
            check=True,
        ).stdout.decode("latin-1")  # it prints uninitialised bytes beside "same"
        found = re.search(r"# segs: (\d+)\).*\(Z Stat: *(\S+)\) \(Stat Diff: (\w+)\)", said)
        assert found, said
        segments, z, differ = found.groups()
        yield {"first": first, "second": second, "segments": int(segments), "z": z, "differ": differ == "Yes"}


def write_trn(texts: Sequence[str], file: Path) -> None:
    """Write NIST's transcript format: the words, then the name of speaker and utterance."""
    file.write_text("".join(f"{text} (s-{number:05})\n" for number, text in enumerate(texts)))


def sclite(texts: Sequence[str], folder: Path, name: str) -> bytes:
    """One system's alignments in the form that sc_stats reads."""
    write_trn(texts, folder / f"{name}.trn")
    words = ["-r", folder / "reference.trn", "trn", "-h", folder / f"{name}.trn", "trn", name, "-i", "wsj"]
    subprocess.run([SCTK / "sclite", *words, "-o", "sgml", "-n", name, "-O", folder], check=True, capture_output=True)
    return (folder / f"{name}.sgml").read_bytes()


if __name__ == "__main__":
    main()
