"""``paretone evaluate``, ``paretone score`` and ``paretone transcribe``."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paretone.cli import options as o

if TYPE_CHECKING:
    from paretone.results import Comparison

Language = Annotated[
    str | None, typer.Option(help="Code of the language, where the data does not tell, e.g. en, da, nl.")
]
Normaliser = Annotated[
    str, typer.Option(help="auto, or by name: whisper-english, digits, basic. auto goes by language.")
]


def evaluate(
    model: o.Model,
    data: o.Data,
    baseline: Annotated[str | None, typer.Option(help="Model to compare with, measured in the same run.")] = None,
    limit: o.Limit = None,
    out: Annotated[Path | None, typer.Option(help="Folder for result.json and the transcripts.")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Skip and name bad recordings and empty references.")
    ] = False,
    language: Language = None,
    normaliser: Normaliser = "auto",
    revision: o.Revision = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.", min=0)] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older result in --out.")] = False,
    as_json: o.Json = False,
) -> None:
    """Measure words wrong, parameters, bytes and speed; with a baseline also whether the difference is real."""
    from paretone.evaluation import evaluate as measure

    result = measure(
        model,
        data,
        baseline=baseline,
        limit=limit,
        out=out,
        overwrite=overwrite,
        skip_bad=skip_bad,
        language=language,
        normaliser=normaliser,
        revision=revision,
        seed=seed,
        command=["paretone", *sys.argv[1:]],
    )
    for skipped in result.data.skipped:
        print(f"skipped: {skipped.audio}: {skipped.reason}", file=sys.stderr)
    if as_json:
        print(result.model_dump_json())
        return
    from rich.console import Console

    from paretone.report import terminal_table

    Console(width=None if sys.stdout.isatty() else 140).print(terminal_table([result]))
    print(f"normaliser {result.normaliser}, {result.utterances} utterances, {result.words} words")


def score(
    transcripts: Annotated[Path, typer.Argument(help="A transcripts.jsonl of paretone evaluate --out.")],
    against: Annotated[Path | None, typer.Option(help="The baseline's transcripts of the same utterances.")] = None,
    normaliser: Annotated[
        str | None, typer.Option(help="Another normaliser than the one that the transcripts name.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.", min=0)] = 0,
    as_json: o.Json = False,
) -> None:
    """Score transcripts again, without a model."""
    from paretone.results import score as count

    scores = count(transcripts, against, normaliser=normaliser, seed=seed)
    if as_json:
        print(scores.model_dump_json())
        return
    _show_scores(scores)


def _show_scores(scores: "Comparison") -> None:
    low, high = scores.wer_ci95
    print(f"WER {scores.wer:.2%} [{low:.2%}, {high:.2%}]  CER {scores.cer:.2%}")
    print(
        f"{scores.substitutions} substitutions, {scores.deletions} deletions, {scores.insertions} insertions "
        f"in {scores.words} words of {scores.utterances} utterances; normaliser {scores.normaliser}"
    )
    if scores.baseline is not None and scores.delta_wer is not None and scores.delta_wer_ci95 is not None:
        low, high = scores.delta_wer_ci95
        print(
            f"against {scores.baseline.wer:.2%}: {scores.delta_wer * 100:+.2f} points "
            f"[{low * 100:+.2f}, {high * 100:+.2f}], p = {scores.p_value:.3g} (paired bootstrap)"
        )


def transcribe(
    model: o.Model,
    audio: Annotated[list[Path], typer.Argument(help="Audio files of any rate and length.")],
    language: Language = None,
    revision: o.Revision = None,
    as_json: o.Json = False,
) -> None:
    """Write down what is said in recordings."""
    from paretone.evaluation import transcribe as listen

    heard = listen(model, audio, revision=revision, language=language)
    if as_json:
        rows = [{"audio": t.audio, "text": t.text, "duration_s": t.duration_s} for t in heard]
        print(json.dumps({"model": model, "transcriptions": rows}, ensure_ascii=False))
        return
    for t in heard:
        print(f"{shlex.quote(t.audio)}\t{t.text}" if len(heard) > 1 else t.text)
