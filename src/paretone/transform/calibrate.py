"""What steps learn from beside weights: rows of a run on unlabelled audio or on synthetic sound, and a record of it."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paretone.checkpoint import Checkpoint
from paretone.data import (
    AUDIO_KEY,
    CALIBRATION_FILE,
    RATE_HZ,
    Data,
    audio_digests,
    open_data,
    probes,
    read_audio,
    read_making,
    segment,
    write_making,
)
from paretone.errors import UserError
from paretone.plan import Calibration, Material, Plan, Recipe, Step, StepPlan
from paretone.transform.activations import collect

CTC_WINDOW_S = 30.0


@dataclass(frozen=True)
class Asked:
    """What one step is to learn from: ``data``, ``limit`` recordings of it at most, or synthetic sound, or nothing."""

    is_probe: bool
    data: str | None
    limit: int
    seed: int
    reads_rows: bool
    digest: str | None = None


def asked_of(how: Recipe | Plan, *, only_weighing: bool) -> list[Asked]:
    """What each step asks for; rows are not read where ``only_weighing`` and no allocation weighs errors."""
    if isinstance(how, Recipe):
        return [_asked_of_step(step, how.seed, only_weighing) for step in how.steps]
    return [_asked_of_plan(step, only_weighing) for step in how.steps]


def _asked_of_step(step: Step, seed: int, only_weighing: bool) -> Asked:
    reads_rows = step.allocation == "error" or not only_weighing
    return Asked(step.inputs == "synthetic-probe", step.calibrate, step.calibrate_limit, seed, reads_rows)


def _asked_of_plan(step: StepPlan, only_weighing: bool) -> Asked:
    told, is_probe = step.calibration, step.inputs == "synthetic-probe"
    if told is None:
        return Asked(is_probe, None, 1, step.seed, not only_weighing)
    return Asked(False, told.data, told.limit, step.seed, not only_weighing, told.digest)


@dataclass(frozen=True)
class Heard:
    """The materials of all steps, and the recordings behind them."""

    materials: tuple[Material, ...]
    data: tuple[Data, ...]


@contextmanager
def heard(checkpoint: Checkpoint, asked: Sequence[Asked]) -> Iterator[Heard]:
    """Opens the data, runs the model on it where rows are read, and keeps the rows on disk until the block ends.

    Raises:
        UserError: if data can't be used, or is not what a plan was made with.
    """
    made: dict[Asked, Material] = {}
    opened: dict[tuple[str, int], Data] = {}
    with tempfile.TemporaryDirectory(prefix="paretone-") as name:
        for one in asked:
            if one not in made:
                folder = Path(name) / str(len(made))
                folder.mkdir()
                made[one] = _material(checkpoint, one, folder, opened)
        yield Heard(tuple(made[one] for one in asked), tuple(opened.values()))


def _material(checkpoint: Checkpoint, asked: Asked, folder: Path, opened: dict[tuple[str, int], Data]) -> Material:
    if asked.data is None:
        if not (asked.is_probe and asked.reads_rows):
            return Material()
        return Material(seen=collect(checkpoint, probes(asked.seed), folder, seed=asked.seed).seen)
    key = asked.data, asked.limit
    if key not in opened:
        opened[key] = open_data(asked.data, limit=asked.limit, labelled=False)
    data = opened[key]
    if asked.digest not in (None, data.digest):
        raise UserError(
            f"the plan was calibrated on {asked.digest}, and {asked.data} now is {data.digest}; "
            "give the data back its files, or make the plan anew"
        )
    told = Calibration(
        data=asked.data, name=data.name, digest=data.digest, clips=len(data.utterances), limit=asked.limit
    )
    if not asked.reads_rows:
        return Material(told)
    return Material(told, collect(checkpoint, _pieces(checkpoint, data), folder, seed=asked.seed).seen)


def _pieces(checkpoint: Checkpoint, data: Data) -> Iterable[np.ndarray]:
    """All recordings, cut where they are longer than the model's window."""
    positions = checkpoint.config.get("max_source_positions")  # Whisper's, 50 a second
    window_s = CTC_WINDOW_S if positions is None else positions / 50
    for utterance in data.utterances:
        yield from segment(read_audio(utterance.audio, name=utterance.name), RATE_HZ, window_s)


def write_calibration(checkpoint: Checkpoint, data: Sequence[Data], folder: Path) -> None:
    """Writes which recordings a model was calibrated on, those of its source too, so that none is measured on them."""
    before = read_making(checkpoint.folder, CALIBRATION_FILE)
    told = [
        {"name": each.name, "path": each.path, "digest": each.digest, "clips": len(each.utterances)} for each in data
    ]
    digests = {digest for each in data for digest in audio_digests(each.utterances)}
    record = {"format": 1, "data": [*before.get("data", []), *told]}
    write_making(folder / CALIBRATION_FILE, record, sorted(digests | set(before.get(AUDIO_KEY, []))))
