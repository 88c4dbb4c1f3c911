"""``paretone slam``: speech LLMs."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from paretone.cli import options as o
from paretone.cli.training import interrupted
from paretone.errors import UserError

app = typer.Typer(help="Train speech LLMs: encoder, projector, language model.", no_args_is_help=True)

Recipe = Annotated[Path, typer.Argument(help="YAML recipe; see docs/slam.md.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="In place of a key, such as training.seed=1.")
]


@app.command()
def train(
    recipe: Recipe,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the run, in place of the recipe's; appears only when complete.")
    ] = None,
    changes: Set = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Only go on with an unfinished run; the same command does so anyway.")
    ] = False,
    checkpoint_every: Annotated[
        float, typer.Option(help="Seconds between checkpoints that an interrupted run goes on from.", min=0)
    ] = 300,
    restart: Annotated[bool, typer.Option("--restart", help="Throw an unfinished run away.")] = False,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
) -> None:
    """Train a projector, and adapters where the recipe says so; an interrupted run goes on."""
    from paretone.api import train_slam
    from paretone.plan import parse_settings
    from paretone.train.slam.recipe import read_slam_recipe
    from paretone.train.together import is_main
    from paretone.train.unfinished import folder_of

    read = read_slam_recipe(recipe, parse_settings(changes or []))
    where = out or (Path(read.out) if read.out else None)
    if resume and restart:
        raise UserError("--resume and --restart exclude each other")
    if resume and where is not None and not folder_of(where).exists():
        raise UserError(f"--resume: {folder_of(where)} does not exist, so there is nothing to go on with; leave it out")
    words = ["paretone", "slam", "train", str(recipe), *(f"--set={each}" for each in changes or [])]
    try:
        done = train_slam(
            read,
            where,
            checkpoint_every_s=checkpoint_every,
            restart=restart,
            overwrite=overwrite,
            command=shlex.join(words),
        )
    except KeyboardInterrupt as interrupt:
        interrupted(interrupt)
    if not is_main():
        return  # the first process speaks for all
    for notice in done.notices:
        print(f"note: {notice}", file=sys.stderr)
    record = done.record
    if as_json:
        print(json.dumps({"out": str(done.out), **record}, ensure_ascii=False))
        return
    kept = "" if record["dev_wer"] is None else f", dev WER {record['dev_wer']:.2%} at update {record['best_update']}"
    print(f"{done.out}: {record['samples']} recordings, {record['updates']} updates in {record['seconds']:.0f} s{kept}")
    parts = record["parts"]
    print(
        f"parameters: encoder {parts['encoder']:,}, projector {parts['projector']:,}, language model "
        f"{parts['language_model']:,}; trained {parts['trainable']:,}"
    )
    print(f"How good is it? paretone evaluate {done.out} --data DATA")


@app.command()
def features(
    recipe: Recipe,
    depths: Annotated[
        str | None, typer.Option(help="Numbers of layers, as 2,4,6; one pass serves all. The recipe's by default.")
    ] = None,
    changes: Set = None,
    cache_gb: Annotated[float | None, typer.Option(help="The most that the cache may take, in GB.", min=0)] = None,
    as_json: o.Json = False,
) -> None:
    """Fill the feature cache of a recipe, so that its trainings need not run the encoder."""
    from paretone.plan import parse_settings
    from paretone.train.slam.recipe import read_slam_recipe
    from paretone.train.slam.training import fill_features

    more = {} if cache_gb is None else {"features.gb": cache_gb}
    read = read_slam_recipe(recipe, {**parse_settings(changes or []), **more})
    try:
        numbers = None if depths is None else [int(each) for each in depths.split(",")]
    except ValueError as error:
        raise UserError(f"--depths {depths!r}: write whole numbers, as 2,4,6") from error
    told = fill_features(read, numbers)
    if as_json:
        print(json.dumps(told))
        return
    size, count = told["bytes"] / 1e6, len(told["depths"])
    print(
        f"{told['folder']}: {told['recordings']} recordings at {count} depths, {size:.1f} MB; {told['heard']} heard now"
    )


@app.command()
def merge(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    out: Annotated[Path, typer.Argument(help="Folder for the whole model; appears only when complete.")],
    overwrite: o.Overwrite = False,
) -> None:
    """Write a run as one standalone checkpoint, adapters merged."""
    from paretone.api import merge_slam

    print(merge_slam(run, out, overwrite=overwrite))
