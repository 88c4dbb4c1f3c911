"""``paretone evaluate``, ``paretone score`` and ``paretone transcribe``."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paretone.cli import options as o
from paretone.terminal import new_console

if TYPE_CHECKING:
    from paretone.results import Comparison, Result

Normaliser = Annotated[
    str, typer.Option(help="auto, or by name: whisper-english, digits, basic, slam. auto goes by language.")
]


def evaluate(
    model: o.Model,
    data: o.Data,
    baseline: Annotated[str | None, typer.Option(help="Model to compare with, measured in the same run.")] = None,
    limit: o.Limit = None,
    out: Annotated[Path | None, typer.Option(help="Folder for result.json and the transcripts.")] = None,
    skip_bad: o.SkipBad = False,
    language: o.Language = None,
    normaliser: Normaliser = "auto",
    revision: o.Revision = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.", min=0)] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older result in --out.")] = False,
    allow_seen: Annotated[
        bool, typer.Option("--allow-seen", help="Measure on recordings that a model was fine-tuned or calibrated on.")
    ] = False,
    device: o.Device = "auto",
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
        device=device,
        allow_seen=allow_seen,
        command=["paretone", *sys.argv[1:]],
    )
    _warn_of_seen(result)
    for skipped in result.data.skipped:
        print(f"skipped: {skipped.audio}: {skipped.reason}", file=sys.stderr)
    if as_json:
        print(result.model_dump_json())
        return
    from paretone.report import terminal_table
    from paretone.report.words import printable

    new_console(140).print(terminal_table([result]))
    print(f"normaliser {result.normaliser}, {result.utterances} utterances, {result.words} words")
    if gpu := result.decoding.get("accelerator"):
        print(f"on {printable(gpu)} in {result.decoding['dtype']}")
    _show_languages(result)
    _show_guards(result)
    _show_verdicts(result)


def _warn_of_seen(result: "Result") -> None:
    for measures in filter(None, (result, result.baseline)):
        if measures.model.seen:
            print(
                f"note: {measures.model.name} was made with {measures.model.seen} of these {result.utterances} "
                "recordings; its errors here say little about others",
                file=sys.stderr,
            )


def _show_languages(result: "Result") -> None:
    from paretone.report.speech_llms import by_language
    from paretone.report.words import printable

    told = []
    for split in by_language(result, result.baseline):
        rate = "no words" if split.ours.wer is None else f"{split.ours.wer:.2%}"
        change = "" if split.delta_wer is None else f" ({split.delta_wer * 100:+.2f} points)"
        told.append(f"{printable(split.name)} {rate}{change}")
    if len(told) > 1:
        print(f"WER by language: {', '.join(told)}")


def _show_guards(result: "Result") -> None:
    """How often a speech LLM, or one that it is compared with, was kept from answering at length."""
    from paretone.report.speech_llms import held_guards

    told = []
    for whose, measures in (("", result), ("baseline ", result.baseline)):
        held = held_guards(measures) if measures else {}
        if held:
            told.append(whose + ", ".join(f"{name} {times}" for name, times in held.items()))
    if told:
        print(f"guards: {'; '.join(told)}")


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
    _show_verdicts(scores)


def _show_verdicts(found: "Comparison | Result") -> None:
    from paretone.results.mapsswe import ENOUGH
    from paretone.results.significance import ALPHA, POWER

    if found.baseline is None or found.delta_wer is None or found.delta_wer_ci95 is None:
        return
    low, high = found.delta_wer_ci95
    print(
        f"against {found.baseline.wer:.2%}: {found.delta_wer * 100:+.2f} points "
        f"[{low * 100:+.2f}, {high * 100:+.2f}], p = {found.p_value:.3g} (paired bootstrap)"
    )
    if found.p_mapsswe is None:
        print(
            "matched pairs: no verdict, the number of errors differs by the same in each segment "
            f"(MAPSSWE, {found.mapsswe_segments} in all)"
        )
    else:
        few = f"; rough below {ENOUGH}" if (found.mapsswe_segments or 0) < ENOUGH else ""
        print(
            f"matched pairs: p = {found.p_mapsswe:.3g} (MAPSSWE, Z = {found.mapsswe_z:+.3f} "
            f"over {found.mapsswe_segments} segments{few})"
        )
    if found.detectable_delta_wer is not None:
        least = found.detectable_delta_wer * 100
        print(
            f"with this test set a change below {least:.2f} points cannot be seen reliably "
            f"(power {POWER:g} at p < {ALPHA:g})"
        )


def transcribe(
    model: o.Model,
    audio: Annotated[list[Path], typer.Argument(help="Audio files of any rate and length.")],
    language: o.Language = None,
    revision: o.Revision = None,
    device: o.Device = "auto",
    as_json: o.Json = False,
) -> None:
    """Write down what is said in recordings."""
    from paretone.evaluation import transcribe as listen

    heard = listen(model, audio, revision=revision, language=language, device=device)
    if as_json:
        rows = [{"audio": t.audio, "text": t.text, "duration_s": t.duration_s} for t in heard]
        print(json.dumps({"model": model, "transcriptions": rows}, ensure_ascii=False))
        return
    for t in heard:
        print(f"{shlex.quote(t.audio)}\t{t.text}" if len(heard) > 1 else t.text)
