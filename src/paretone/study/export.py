"""A study's Results as tables: a row per cell and language, and a row per cell and utterance.

Columns of the first, after one per axis: `COLUMNS`. An axis that is called like one of these has ``axis_`` in front.
Rates are fractions. Times are of the machine that ran the cell.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from paretone.data import TRAINING_FILE, read_making
from paretone.errors import UserError
from paretone.folders import new_folder
from paretone.results import Result, read_result, read_transcripts
from paretone.results.schema import TRANSCRIPTS_FILE
from paretone.study.overview import state_of
from paretone.study.store import Store

COLUMNS = {
    "cell": "digest that names the cell",
    "language": "of the utterances counted in this row; empty where the data does not tell",
    "wer": "word error rate",
    "substitutions": "of reference words",
    "deletions": "of reference words",
    "insertions": "beside reference words",
    "words": "reference words",
    "utterances": "counted in this row",
    "cell_wer": "of all utterances of the cell",
    "cell_wer_low": "lower end of its 95 % interval (bootstrap over utterances)",
    "cell_wer_high": "upper end",
    "cell_cer": "character error rate of the cell",
    "parameters": "of the whole model",
    "parameters_encoder": "of a speech LLM's encoder",
    "parameters_projector": "of its projector",
    "parameters_language_model": "of its language model, adapters included",
    "parameters_trained": "that its training changed",
    "size_bytes": "of the weights on disk",
    "macs": "multiply-accumulates for the reference input",
    "rtfx": "seconds of audio per second of decoding",
    "peak_rss_bytes": "highest resident memory while it was measured",
    "updates": "of the training",
    "train_s": "seconds of the training loop",
    "dev_wer": "of the weights that were kept",
    "model_digest": "of the weights",
    "data_digest": "of the test set",
    "version": "of paretone",
}
TRANSCRIPT_COLUMNS = ("cell", "id", "language", "speaker", "duration_s", "text", "hypothesis")


def rows_of(store: Store, name: str) -> Iterator[dict[str, Any]]:
    """A row per measured cell and language, in the study's order."""
    state = state_of(store, name)
    for cell in state.cells:
        if cell.state == "done":
            folder = store.folder(cell.place)
            axes = [f"axis_{axis}" if axis in COLUMNS else axis for axis in state.axes]
            labels = dict(zip(axes, cell.labels, strict=True))
            result = read_result(folder)
            yield from _rows(labels, folder, result, making_of(result))


def making_of(result: Result) -> dict[str, Any]:
    """What the record of a cell's training says; nothing where there was none, or the model is not kept."""
    record = read_making(Path(result.model.path), TRAINING_FILE)
    if not record:
        return {}
    trained = (record.get("parts") or {}).get("trainable")
    told = {"updates": record["updates"], "train_s": record["seconds"], "dev_wer": record["dev_wer"]}
    return told | {"parameters_trained": trained}


def _rows(
    labels: Mapping[str, str], folder: Path, result: Result, making: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    whole = {
        "cell_wer": result.wer,
        "cell_wer_low": result.wer_ci95[0],
        "cell_wer_high": result.wer_ci95[1],
        "cell_cer": result.cer,
        "parameters": result.parameters,
        **{f"parameters_{part}": result.parts.get(part) for part in ("encoder", "projector", "language_model")},
        "size_bytes": result.size_bytes,
        "macs": result.macs,
        "rtfx": result.rtfx,
        "peak_rss_bytes": result.peak_rss_bytes,
        "model_digest": result.model.digest,
        "data_digest": result.data.digest,
        "version": result.version,
        **making,
    }
    groups: Mapping[str, Any] = result.by_language or {"": result}
    for language, group in groups.items():
        counts = {
            key: getattr(group, key)
            for key in ("wer", "substitutions", "deletions", "insertions", "words", "utterances")
        }
        row = {"cell": folder.name, "language": language, **counts, **whole}
        yield {**labels, **{column: row.get(column) for column in COLUMNS}}


def transcript_rows(store: Store, name: str) -> Iterator[dict[str, Any]]:
    """A row per measured cell and utterance."""
    for cell in state_of(store, name).cells:
        if cell.state == "done":
            folder = store.folder(cell.place)
            for heard in read_transcripts(folder / TRANSCRIPTS_FILE):
                told = heard.model_dump()
                yield {"cell": folder.name, **{column: told[column] for column in TRANSCRIPT_COLUMNS[1:]}}


def export(store: Store, name: str, out: Path, *, overwrite: bool = False) -> dict[str, int]:
    """Writes results.csv, results.parquet and transcripts.parquet to the folder ``out``; returns rows of each.

    Raises:
        UserError: if no cell is measured yet, or pyarrow is not there.
    """
    try:
        import pyarrow as pa
        from pyarrow import csv, parquet
    except ImportError as error:
        raise UserError("tables are written by pyarrow: pip install 'paretone[study]'") from error
    rows = list(rows_of(store, name))
    if not rows:
        raise UserError(f"study {name}: no cell is measured yet; paretone study run")
    heard = list(transcript_rows(store, name))
    with new_folder(out, overwrite=overwrite, ours=("results.csv",)) as partial:
        table = pa.Table.from_pylist(rows)
        csv.write_csv(table, partial / "results.csv")
        parquet.write_table(table, partial / "results.parquet", compression="zstd")
        parquet.write_table(pa.Table.from_pylist(heard), partial / "transcripts.parquet", compression="zstd")
    return {"results": len(rows), "transcripts": len(heard)}
