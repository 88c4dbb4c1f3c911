"""A corpus made ready for training and tests: one manifest per split, what was left out, and why."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from paretone.data.corpora import SPLITS
from paretone.data.sifting import Limits, Sifting
from paretone.data.sources import ALL, open_source
from paretone.errors import UserError, did_you_mean
from paretone.folders import check_apart, check_new_folder, new_folder, write_file
from paretone.version import __version__

SUMMARY_FILE = "summary.json"


@dataclass(frozen=True)
class Prepared:
    """What was written.

    Attributes:
        summary: the content of summary.json.
    """

    out: Path
    summary: dict[str, Any]


def prepare(
    source: str | Path,
    out: str | Path,
    *,
    language: str | None = None,
    split: str = ALL,
    max_hours: float | None = None,
    seed: int = 0,
    min_s: float = Limits.min_s,
    max_s: float = Limits.max_s,
    max_characters: int = Limits.max_characters,
    revision: str | None = None,
    overwrite: bool = False,
) -> Prepared:
    """Writes train.jsonl, dev.jsonl, test.jsonl and summary.json into the folder ``out``.

    Every recording that is kept was read to its end. Local audio stays where it is, and manifests name it by absolute
    path; what is streamed from the hub is written to ``out``/clips. Lines are sorted by id and texts are as published.
    Equal input gives equal bytes, in whatever order it lists its utterances.

    Args:
        source: a Common Voice folder, of one language or the one above it; a LibriSpeech folder; a JSONL manifest or a
            folder of them; a folder in one of the hub's formats; or a hub id, ``organisation/name[:config[:split]]``.
        language: the one to take where there are several; what says no language is taken to be in it.
        split: "train", "dev" or "test"; "all" takes those that are there.
        max_hours: at most so many hours of each split, by a random choice that ``seed`` makes; an utterance's place in
            it depends on its id alone.
        min_s, max_s: shortest and longest recording.
        max_characters: longest text.
        revision: branch, tag or commit of a hub id; summary.json says which commit it was.

    Raises:
        UserError: for anything wrong with the source, the limits or ``out``, if nothing is left of a split, or if more
            than 1 % of its recordings are not there.
    """
    limits = Limits(min_s, max_s, max_characters, max_hours, seed)
    limits.check()
    if split not in (ALL, *SPLITS):
        raise UserError(f"no split {split!r}; there are {ALL}, {', '.join(SPLITS)}{did_you_mean(split, SPLITS)}")
    check_new_folder(Path(out), overwrite=overwrite, ours=(SUMMARY_FILE,))
    if Path(source).expanduser().exists():
        check_apart(Path(source).expanduser(), Path(out), what="source")
    found = open_source(str(source), language=language, split=split, revision=revision)
    with new_folder(Path(out), overwrite=overwrite, ours=(SUMMARY_FILE,)) as folder:
        summary: dict[str, Any] = {"source": str(source), "kind": found.kind, "revision": found.revision}
        summary |= {"language": language, "split": split, **asdict(limits), "paretone": __version__, "splits": {}}
        speakers: list[set[str]] = []
        for name, entries in found.splits.items():
            sifted = Sifting(name, folder, limits, language).run(entries, listed=found.listed)
            summary["splits"][name] = sifted.summary()
            if split == ALL and sifted.lists_nothing():
                continue  # in small languages Common Voice has tables without a line
            if not sifted.kept:
                raise UserError(f"{source}: nothing is left of {name}; {sifted.explained()}")
            write_file(folder / f"{name}.jsonl", "".join(line.to_json() + "\n" for line in sifted.kept))
            speakers.append(sifted.speakers())
        if not speakers:
            raise UserError(f"{source} lists no utterances in {', '.join(found.splits)}")
        summary["speakers_in_several_splits"] = len(_in_several(speakers))
        write_file(folder / SUMMARY_FILE, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    return Prepared(Path(out), summary)


def _in_several(groups: list[set[str]]) -> set[str]:
    everyone = set().union(*groups)
    return {each for each in everyone if sum(each in group for group in groups) > 1}
