"""A model and data in, a Result out."""

import datetime
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretone.checkpoint import Checkpoint, locate, open_checkpoint
from paretone.data import TRAINING_FILE, Data, open_data, read_making, refuse_seen, seen_utterances
from paretone.errors import UserError
from paretone.evaluation.decode import BATCH_S, decode
from paretone.evaluation.measure import accelerator, count_macs, count_parameters, machine, reference_input
from paretone.folders import check_new_folder, new_folder
from paretone.memory import peak_rss_bytes, reset_peak_rss
from paretone.model import load, weight_files
from paretone.model.hearing import Recogniser, recogniser
from paretone.model.loading import chosen_device
from paretone.results import Result, Transcript, choose, compare, score, write_result, write_transcripts
from paretone.results.normalise import AUTO
from paretone.results.schema import (
    BASELINE_TRANSCRIPTS_FILE,
    RESULT_FILE,
    TRANSCRIPTS_FILE,
    Comparison,
    DataInfo,
    Measures,
    ModelInfo,
    Skipped,
)
from paretone.version import __version__


@dataclass(frozen=True)
class Run:
    """One model decoded on one set: what it heard, what that cost, and of what.

    Attributes:
        texts: in the order of the utterances.
        costs: the fields of `Measures` beside the scores.
        data_digest: of the set.
        settings: how it was decoded; two runs compare only where these are equal.
    """

    texts: list[str]
    costs: dict[str, Any]
    data_digest: str
    settings: tuple[float, str]


def decode_once(model: str | Path, data: str | Path, *, batch_s: float = BATCH_S, device: str = "cpu") -> Run:
    """A baseline for many calls of `evaluate` on the same data, so that it is decoded only once.

    Raises:
        UserError: as `evaluate`.
    """
    device = chosen_device(device)
    checkpoint, found = open_checkpoint(locate(model)), open_data(data)
    refuse_seen(str(model), checkpoint.folder, found)
    return _run(str(model), None, checkpoint, found, batch_s=batch_s, device=device)


def evaluate(
    model: str | Path,
    data: str | Path,
    *,
    baseline: str | Path | Run | None = None,
    limit: int | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    batch_s: float = BATCH_S,
    skip_bad: bool = False,
    seed: int = 0,
    language: str | None = None,
    normaliser: str = AUTO,
    revision: str | None = None,
    device: str = "cpu",
    allow_seen: bool = False,
    command: Sequence[str] = (),
) -> Result:
    """Recognise ``data`` with ``model`` and count errors, parameters, bytes, multiplications and seconds.

    The transcripts are written first and the scores computed from them; `paretone.results.score` gives the same scores
    from the files in ``out``. A baseline runs in the same process on the same data, before the model; one that serves
    many models comes ready from `decode_once`.

    Args:
        model: local folder, hub id or embedded name; ``baseline`` likewise.
        data: see `paretone.data.open_data`, also for ``limit``, ``skip_bad`` and ``language``.
        out: a new folder for result.json and the transcripts; it appears when all is complete.
        overwrite: whether an older result in ``out`` may be replaced.
        batch_s: most seconds of audio in a batch; results do not depend on it.
        seed: of the bootstrap.
        normaliser: "auto", "whisper-english", "digits", "basic" or "slam"; see `paretone.results.choose`.
        revision: of ``model``, where it is a hub id.
        device: "cpu", "cuda", "cuda:1", …, or "auto" for a GPU where there is one; on "cpu" the arithmetic is float32,
            elsewhere it has the checkpoint's own type.
        allow_seen: whether recordings that a model was fine-tuned or calibrated on may be measured; the result
            counts them.
        command: what was typed, for the record.

    Raises:
        UserError: if the model, the data or ``out`` can't be used, or, without ``allow_seen``, a model was fine-tuned
            or calibrated on recordings of ``data``.
    """
    device = chosen_device(device)
    if out is not None:
        check_new_folder(Path(out), overwrite=overwrite, ours=(RESULT_FILE,))
    ready = baseline if isinstance(baseline, Run) else None
    given: list[tuple[str | Path, str | None]] = [(model, revision)]
    if baseline is not None and not isinstance(baseline, Run):
        given.insert(0, (baseline, None))
    checkpoints = [open_checkpoint(locate(name, wanted)) for name, wanted in given]
    found = open_data(data, limit=limit, skip_bad=skip_bad, language=language)
    if not allow_seen:
        for (name, _), checkpoint in zip(given, checkpoints, strict=True):
            refuse_seen(str(name), checkpoint.folder, found)
    if ready and (ready.data_digest, ready.settings) != (found.digest, (batch_s, device)):
        raise UserError(f"{ready.costs['model'].path} was decoded on other data or in another way than {data} is")
    names = _normalisers(found, normaliser)
    runs = [ready] if ready else []
    runs += [
        _run(str(name), wanted, checkpoint, found, batch_s=batch_s, device=device)
        for (name, wanted), checkpoint in zip(given, checkpoints, strict=True)
    ]
    with _folder(out, overwrite) as folder:
        scores = _score(folder, found, names, [run.texts for run in runs], seed)
        result = _result(scores, [run.costs for run in runs], found, seed, command)
        write_result(result, folder / RESULT_FILE)
    return result


def word_error_rate(model: Any, processor: Any, found: Data, *, name: str, normaliser: str = AUTO) -> float:
    """The ``wer`` that `evaluate` would report for a loaded model: the same decoding, normalisers and counts."""
    decoded = decode(recogniser(name, model, processor), found.utterances)
    heard = list(_transcripts(found, _normalisers(found, normaliser), decoded.texts))
    return compare(heard).wer


def _normalisers(found: Data, normaliser: str) -> list[str]:
    return choose(normaliser, [u.text for u in found.utterances], [u.language for u in found.utterances])


def _run(name: str, revision: str | None, checkpoint: Checkpoint, found: Data, *, batch_s: float, device: str) -> Run:
    info = _model_info(name, revision, checkpoint, found)
    reset_peak_rss()
    model, processor = load(checkpoint.folder, device=device, dtype="float32" if device == "cpu" else None)
    ready = recogniser(info.name, model, processor)
    decoded = decode(ready, found.utterances, batch_s=batch_s)
    decoding = {
        "method": _method(ready),
        "window_s": ready.window_s,
        "batch_s": batch_s,
        "device": device,
        "dtype": str(model.dtype).removeprefix("torch."),
        "macs_of": reference_input(model)[0],
    }
    if (gpu := accelerator(model.device)) is not None:
        decoding["accelerator"] = gpu
    if ready.is_slam:
        decoding["guards"] = decoded.guards
    costs = {
        "model": info,
        "decoding": decoding,
        "parameters": count_parameters(model),
        "parts": ready.model.part_sizes() if ready.is_slam else {},
        "size_bytes": sum(path.stat().st_size for path in weight_files(checkpoint)),
        "macs": count_macs(model),
        "rtfx": found.audio_s / decoded.seconds,
        "audio_s": found.audio_s,
        "seconds": decoded.seconds,
        "peak_rss_bytes": peak_rss_bytes(),
    }
    return Run(decoded.texts, costs, found.digest, (batch_s, device))


def _method(ready: Recogniser) -> str:
    if ready.is_slam:
        beams = ready.model.generation_config.num_beams
        return "greedy generate" if beams == 1 else f"generate, {beams} beams"
    return "greedy generate" if ready.is_whisper else "greedy CTC"


def _model_info(name: str, revision: str | None, checkpoint: Checkpoint, found: Data) -> ModelInfo:
    plan = checkpoint.folder / "plan.json"
    seen = seen_utterances(checkpoint.folder, found)
    return ModelInfo(
        name=Path(name).resolve().name if Path(name).is_dir() else name,
        path=name,
        revision=revision,
        digest=checkpoint.digest(),
        family=str(checkpoint.config["model_type"]),
        architecture=str((checkpoint.config.get("architectures") or [""])[0]),
        plan=json.loads(plan.read_text(encoding="utf-8")) if plan.exists() else None,
        training=_training(checkpoint),
        seen=len({each for ids in seen.values() for each in ids}),
    )


def _training(checkpoint: Checkpoint) -> dict[str, Any] | None:
    record = read_making(checkpoint.folder, TRAINING_FILE)
    if not record:
        return None
    plan = checkpoint.plan_digest()
    told = {name: record.get(name) for name in ("data", "settings", "updates", "dev_wer")}
    return told | {"after_plan": plan is not None and record["model"].get("plan_digest") == plan}


def _data_info(found: Data) -> DataInfo:
    return DataInfo(
        name=found.name,
        path=found.path,
        digest=found.digest,
        utterances=len(found.utterances),
        audio_s=found.audio_s,
        skipped=[Skipped(audio=each.audio, reason=each.reason) for each in found.skipped],
        attribution=found.attribution,
    )


@contextmanager
def _folder(out: str | Path | None, overwrite: bool) -> Iterator[Path]:
    """Where the files go: ``out``, once all are written, or nowhere that stays."""
    if out is not None:
        with new_folder(Path(out), overwrite=overwrite, ours=(RESULT_FILE,)) as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory(prefix="paretone-") as name:
        yield Path(name)


def _score(folder: Path, found: Data, names: Sequence[str], texts: Sequence[Sequence[str]], seed: int) -> Comparison:
    """Write the transcripts of the model (last) and the baseline (first of two), then score the files."""
    files = [folder / BASELINE_TRANSCRIPTS_FILE, folder / TRANSCRIPTS_FILE][-len(texts) :]
    for file, heard in zip(files, texts, strict=True):
        write_transcripts(_transcripts(found, names, heard), file)
    return score(files[-1], files[0] if len(files) > 1 else None, seed=seed)


def _transcripts(found: Data, names: Sequence[str], texts: Sequence[str]) -> Iterator[Transcript]:
    for utterance, normaliser, text in zip(found.utterances, names, texts, strict=True):
        yield Transcript(
            id=utterance.id,
            audio=utterance.name,
            text=utterance.text,
            hypothesis=text,
            language=utterance.language,
            speaker=utterance.speaker,
            duration_s=utterance.duration_s,
            normaliser=normaliser,
        )


def _result(
    scores: Comparison, costs: Sequence[dict[str, Any]], found: Data, seed: int, command: Sequence[str]
) -> Result:
    """The scores, with the costs of the model (last) and the baseline (first of two), and what ran."""
    fields = {name: getattr(scores, name) for name in type(scores).model_fields}
    if scores.baseline is not None:
        fields["baseline"] = Measures(**scores.baseline.model_dump(), **costs[0])
    return Result(
        **fields,
        **costs[-1],
        version=__version__,
        command=list(command),
        seed=seed,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        machine=machine(),
        data=_data_info(found),
    )
