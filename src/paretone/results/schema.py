"""What an evaluation found, as one JSON file: `Result` for models, `Comparison` for transcripts alone."""

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from paretone.errors import UserError
from paretone.folders import write_file

RESULT_FILE = "result.json"
TRANSCRIPTS_FILE = "transcripts.jsonl"
BASELINE_TRANSCRIPTS_FILE = "baseline-transcripts.jsonl"

Interval = tuple[float, float]


class Record(BaseModel):
    """Base of everything in a result file: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Machine(Record):
    """Where it ran."""

    cpu: str
    cores: int
    threads: int
    memory_bytes: int
    python: str
    torch: str
    transformers: str


class ModelInfo(Record):
    """Which model ran.

    ``plan`` is the content of its plan.json where it was compressed. ``training`` says how it was fine-tuned last
    (data, settings, updates), and in ``after_plan`` whether that was after the compression. ``seen`` is how many of the
    recordings it was fine-tuned or calibrated on.
    """

    name: str
    path: str
    revision: str | None = None
    digest: str
    family: str
    architecture: str
    plan: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    seen: int = 0


class Skipped(Record):
    """One recording that was left out, and why."""

    audio: str
    reason: str


class DataInfo(Record):
    """What was recognised; ``digest`` covers names, texts and audio of all utterances."""

    name: str
    path: str
    digest: str
    utterances: int
    audio_s: float
    skipped: list[Skipped] = Field(default_factory=list)
    attribution: str | None = None


class GroupScores(Record):
    """The errors of one speaker, language or length; ``wer`` is null where no reference word was spoken."""

    wer: float | None
    substitutions: int
    deletions: int
    insertions: int
    words: int
    utterances: int


class WordChange(Record):
    """How one reference word fared.

    ``errors`` counts its substitutions and deletions, ``baseline_errors`` those of the baseline (null without one);
    ``heard_as`` counts what stood in its place, the empty string for nothing.
    """

    word: str
    count: int
    baseline_errors: int | None
    errors: int
    heard_as: dict[str, int]


class Scores(Record):
    """Everything that follows from transcripts alone; rates are fractions of the reference words or characters.

    ``by_length`` goes by seconds of audio, shortest first, see `results.scoring.LENGTHS`. Utterances whose speaker,
    language or length is not known are in no group; files of an older version have no lengths.
    """

    normaliser: str
    wer: float
    cer: float
    substitutions: int
    deletions: int
    insertions: int
    words: int
    utterances: int
    character_errors: int
    characters: int
    wer_ci95: Interval
    by_speaker: dict[str, GroupScores] = Field(default_factory=dict)
    by_language: dict[str, GroupScores] = Field(default_factory=dict)
    by_length: dict[str, GroupScores] = Field(default_factory=dict)


class Verdicts(Record):
    """How scores differ from a baseline's; all null without one, or in a file of an older version.

    ``delta_wer`` is this WER minus the baseline's: positive means more errors. Its interval and ``p_value`` are of the
    paired bootstrap. ``p_mapsswe``, ``mapsswe_z`` (its sign as of ``delta_wer``) and ``mapsswe_segments`` are of NIST's
    matched pairs test; the first two are null too where that has no statistic, see `results.mapsswe.MatchedPairs`.
    ``detectable_delta_wer`` is what `results.significance.detectable_delta` finds, null for a single utterance.
    """

    delta_wer: float | None = None
    delta_wer_ci95: Interval | None = None
    p_value: float | None = None
    p_mapsswe: float | None = None
    mapsswe_z: float | None = None
    mapsswe_segments: int | None = None
    detectable_delta_wer: float | None = None


class Comparison(Scores, Verdicts):
    """Scores of transcripts, and how they differ from a baseline's."""

    baseline: Scores | None = None
    word_changes: list[WordChange] = Field(default_factory=list)


class Measures(Scores):
    """Scores of a model, and what it costs to run.

    ``parts`` splits the parameters of a speech LLM up; its ``size_bytes`` include the frozen parts wherever they lie.
    ``macs`` is for the reference input that ``decoding`` names, ``rtfx`` seconds of audio per second of decoding,
    ``peak_rss_bytes`` the process's highest resident memory up to the end of this model's decoding.
    """

    model: ModelInfo
    decoding: dict[str, Any]
    parameters: int
    parts: dict[str, int] = Field(default_factory=dict)
    size_bytes: int
    macs: int
    rtfx: float
    audio_s: float
    seconds: float
    peak_rss_bytes: int


class Result(Measures, Verdicts):
    """One evaluation: what ran and what came out; ``baseline`` holds the same measures of the other model."""

    format: Literal[1] = 1
    kind: Literal["evaluation"] = "evaluation"
    version: str
    command: list[str]
    seed: int
    created: str
    machine: Machine
    data: DataInfo
    baseline: Measures | None = None
    word_changes: list[WordChange] = Field(default_factory=list)


def write_result(result: Result, path: Path) -> None:
    """Write ``result`` as JSON; the file appears only when complete."""
    write_file(path, result.model_dump_json(indent=2) + "\n")


def read_result(path: str | Path) -> Result:
    """Read a result file, or the one in a folder.

    Raises:
        UserError: if there is none, or it is not a result of this format.
    """
    file = Path(path)
    file = file / RESULT_FILE if file.is_dir() else file
    return read_record(file, Result)


R = TypeVar("R", bound=Record)


def read_record(file: Path, kind: type[R]) -> R:
    """Read one JSON record and check it against its schema."""
    try:
        return kind.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); give a result.json or its folder") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{file}: not a {kind.__name__} of format 1: {where}: {first['msg']}") from error
