"""``paretone finetune``."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from paretone.cli import options as o

if TYPE_CHECKING:
    from paretone.train import Finetuned

INTERRUPTED = 130


def finetune(
    model: o.Model,
    out: Annotated[Path, typer.Argument(help="Folder for the trained model; appears only when it is complete.")],
    data: Annotated[
        str, typer.Option(help="What to train on: JSONL manifest, LibriSpeech or Common Voice folder, hub dataset id.")
    ],
    dev: Annotated[
        str | None, typer.Option(help="Decoded after each epoch; the weights with the lowest WER are kept.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="How often all data is gone through.", min=1)] = 3,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW, the highest; it falls linearly to 0.")] = 2e-4,
    batch: Annotated[int, typer.Option(help="Utterances that are heard at once.", min=1)] = 16,
    accumulate: Annotated[int, typer.Option(help="Batches whose gradients make up one update.", min=1)] = 1,
    warm_up: Annotated[float, typer.Option(help="Share of the updates in which the learning rate rises.")] = 0.1,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.01,
    freeze_front_end: Annotated[
        bool | None, typer.Option(help="Leave the convolutions as they are; by default for CTC and not for Whisper.")
    ] = None,
    precision: Annotated[
        Literal["auto", "bf16", "fp32"],
        typer.Option(help="Of the forward pass; auto is bf16 where the hardware has it."),
    ] = "auto",
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Compute layers twice and keep less in memory.")
    ] = False,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without a lower dev WER; 2 with --dev.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of order, dropout and masks.", min=0)] = 0,
    limit: Annotated[int | None, typer.Option(help="At most so many utterances, from the start.", min=1)] = None,
    language: o.Language = None,
    skip_bad: o.SkipBad = False,
    revision: o.Revision = None,
    checkpoint_every: Annotated[
        float, typer.Option(help="Seconds between checkpoints that an interrupted run goes on from.", min=0)
    ] = 300,
    restart: Annotated[bool, typer.Option("--restart", help="Throw an unfinished run of OUT away.")] = False,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
) -> None:
    """Train a model further; an interrupted run goes on when the same command is given again."""
    given = locals()
    from paretone.api import finetune as carry_out
    from paretone.train import Settings
    from paretone.train.together import is_main

    settings = {each.name: given[each.name] for each in dataclasses.fields(Settings)}
    try:
        done = carry_out(
            model,
            out,
            data,
            dev=dev,
            limit=limit,
            language=language,
            skip_bad=skip_bad,
            revision=revision,
            checkpoint_every_s=checkpoint_every,
            restart=restart,
            overwrite=overwrite,
            **settings,
        )
    except KeyboardInterrupt as interrupt:
        interrupted(interrupt)
    if not is_main():
        return  # the first process speaks for all
    for notice in done.notices:
        print(f"note: {notice}", file=sys.stderr)
    if as_json:
        print(json.dumps(done.summary(), ensure_ascii=False))
        return
    _show(done, model)


def interrupted(interrupt: KeyboardInterrupt) -> NoReturn:
    """The command line says of an interrupt that nothing is left; here the run may be."""
    said = str(interrupt) or "interrupted; the same command goes on from the last checkpoint, where there was one"
    print(f"error: {said}", file=sys.stderr)
    sys.exit(INTERRUPTED)


def _show(done: "Finetuned", model: str) -> None:
    record = done.record
    kept = "" if record["dev_wer"] is None else f", dev WER {record['dev_wer']:.2%} at update {record['best_update']}"
    print(f"{done.out}: {record['samples']} recordings, {record['updates']} updates in {record['seconds']:.0f} s{kept}")
    print(f"What did it gain? paretone evaluate {done.out} --data DATA --baseline {model}")
