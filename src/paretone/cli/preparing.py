"""``paretone data prepare``."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from paretone.cli import options as o
from paretone.terminal import new_console

if TYPE_CHECKING:
    from paretone.data import Prepared

app = typer.Typer(help="Make corpora ready.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def data() -> None:
    """Make corpora ready for training and tests."""


@app.command()
def prepare(
    source: Annotated[
        str,
        typer.Argument(
            help="Common Voice folder (of a language, or the one above), LibriSpeech folder, JSONL manifest, folder in "
            "a format of the hub, or hub dataset id, e.g. fsicoli/common_voice_22_0."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the manifests; appears only when it is complete.")],
    language: Annotated[
        str | None,
        typer.Option(help="Code of the language to take, e.g. da; also of utterances that name none."),
    ] = None,
    split: Annotated[
        Literal["train", "dev", "test", "all"], typer.Option(help="Which one; all takes those that are there.")
    ] = "all",
    max_hours: Annotated[
        float | None, typer.Option(help="At most so many hours of each split, chosen at random.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of that choice.", min=0)] = 0,
    min_s: Annotated[float, typer.Option(help="Seconds of the shortest recording that is kept.")] = 0.5,
    max_s: Annotated[float, typer.Option(help="Seconds of the longest recording that is kept.")] = 30.0,
    max_characters: Annotated[int, typer.Option(help="Of the longest text that is kept.")] = 500,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub dataset id.")] = None,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
) -> None:
    """Write train.jsonl, dev.jsonl, test.jsonl and summary.json: every recording read, what is left out named.

    Local audio stays where it is; what is streamed from the hub is written to OUT/clips. Texts stay as published.
    """
    from paretone.data import prepare as carry_out

    done = carry_out(
        source,
        out,
        language=language,
        split=split,
        max_hours=max_hours,
        seed=seed,
        min_s=min_s,
        max_s=max_s,
        max_characters=max_characters,
        revision=revision,
        overwrite=overwrite,
    )
    if as_json:
        print(json.dumps({"out": str(done.out), **done.summary}, ensure_ascii=False))
        return
    _show(done)


def _show(done: "Prepared") -> None:
    from rich.table import Table

    columns = ("utterances", "hours", "speakers", "characters", "words")
    table = Table("split", box=None, pad_edge=False)
    for column in (*columns, "dropped"):
        table.add_column(column, justify="right")
    for name, split in done.summary["splits"].items():
        counts = [f"{split[column]:,.2f}" if column == "hours" else f"{split[column]:,}" for column in columns]
        table.add_row(name, *counts, f"{sum(each['utterances'] for each in split['dropped'].values()):,}")
    new_console(120, stderr=True).print(table)
    for name, split in done.summary["splits"].items():
        for reason, found in split["dropped"].items():
            examples = ", ".join(found["examples"])
            print(f"dropped: {name}, {found['utterances']} {reason}: {examples}", file=sys.stderr)
    if shared := done.summary["speakers_in_several_splits"]:
        print(f"note: {shared} speakers are in more than one split", file=sys.stderr)
    print(done.out)
