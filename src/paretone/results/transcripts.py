"""Transcripts on disk: one utterance a line, written before anything is scored."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import ConfigDict, ValidationError

from paretone.errors import UserError
from paretone.folders import write_file
from paretone.results.schema import TRANSCRIPTS_FILE, Record


class Transcript(Record):
    """What was said and what was heard, both as they came; ``normaliser`` is the versioned name it is scored with."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    audio: str
    text: str
    hypothesis: str
    language: str | None = None
    speaker: str | None = None
    duration_s: float | None = None
    normaliser: str | None = None


def write_transcripts(transcripts: Iterable[Transcript], path: Path) -> None:
    """Write one JSON object a line, in order; the file appears only when complete."""
    write_file(path, "".join(each.model_dump_json() + "\n" for each in transcripts))


def read_transcripts(path: str | Path) -> list[Transcript]:
    """Read transcripts, or those in the folder of an evaluation.

    Raises:
        UserError: if the file is missing or empty, a line is no transcript, or an id comes twice.
    """
    file = Path(path)
    file = file / TRANSCRIPTS_FILE if file.is_dir() else file
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read as transcripts ({error}); give a transcripts.jsonl") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    transcripts = [_parse(file, number, line) for number, line in numbered]
    if not transcripts:
        raise UserError(f"{file} holds no transcripts; give the transcripts.jsonl of an evaluation")
    _refuse_repeated_ids(file, transcripts)
    return transcripts


def _parse(file: Path, number: int, line: str) -> Transcript:
    try:
        return Transcript.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the line"
        raise UserError(f"{file}, line {number}: {where}: {first['msg']}; give one transcript a line") from error


def _refuse_repeated_ids(file: Path, transcripts: list[Transcript]) -> None:
    seen: set[str] = set()
    for each in transcripts:
        if each.id in seen:
            raise UserError(f"{file}: id {each.id!r} comes twice; give every utterance its own id")
        seen.add(each.id)
