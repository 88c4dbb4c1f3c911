"""Options that several commands share, in one wording."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from paretone.api import How

Model = Annotated[
    str,
    typer.Argument(
        help="Local folder in the Hugging Face layout, hub id, or embedded model (digits-hubert, digits-whisper, "
        "mini-whisper, mini-slam)."
    ),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")]
Sparsity = Annotated[
    float | None,
    typer.Option(
        help="How small, by units: share of heads and FFN units, or of layers with depth, that goes; 0 to below 1. "
        "0.5 halves them."
    ),
]
TargetParams = Annotated[
    float | None,
    typer.Option(
        help="How small, by parameters: share of all of the model's that stays; above 0, to 1; met within 0.5 %."
    ),
]
TargetBytes = Annotated[
    float | None, typer.Option(help="How small, by bytes of all weights: share that stays; met within 0.5 %.")
]
TargetMacs = Annotated[
    float | None, typer.Option(help="How small, by multiply-accumulates: share that stays; met within 0.5 %.")
]
Preset = Annotated[
    Literal["best", "paper", "portable"] | None,
    typer.Option(
        help="A whole way of compressing. best (the default): closed form, shared out for the least modelled error; "
        "paper: clustering, shared out by variance tiers (arXiv 2606.11836); portable: as best, FFN only and one "
        "width a stack, loads with stock transformers. Not beside --method."
    ),
]
Method = Annotated[
    str | None,
    typer.Option(help="One method in place of a preset: closed_form, cluster, magnitude, random, or depth (layers)."),
]
Allocation = Annotated[
    Literal["uniform", "variance-tiers", "error"] | None,
    typer.Option(
        help="Beside --method: how the budget is shared out. uniform (the default): every module alike; "
        "variance-tiers: more where parameters vary more; error: least modelled error, closed_form only."
    ),
]
Data = Annotated[
    str, typer.Option(help="JSONL manifest, LibriSpeech or Common Voice folder, hub dataset id, or digits.")
]
Limit = Annotated[int | None, typer.Option(help="At most so many utterances, from the start.", min=1)]
Inputs = Annotated[
    Literal["gaussian", "synthetic-probe"] | None,
    typer.Option(help="What modules are taken to read where there is no data; gaussian by default."),
]
Calibrate = Annotated[
    str | None, typer.Option(help="Unlabelled audio to fit modules to: as --data of evaluate, without text.")
]
CalibrateLimit = Annotated[
    int | None, typer.Option(help="At most so many recordings of --calibrate; 128 by default.", min=1)
]
RecipeFile = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        help="YAML file: an ordered list of steps, each with its own size, preset or method, units, settings.",
    ),
]
UnitKind = Annotated[
    Literal["all", "ffn", "heads"] | None, typer.Option(help="Which units may go; all by default, not for depth.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method, e.g. outgoing=mean; repeatable."),
]
Seed = Annotated[int | None, typer.Option(help="Of all chance; 0 by default.", min=0)]
Language = Annotated[
    str | None, typer.Option(help="Code of the language, where the data does not tell, e.g. en, da, nl.")
]
Device = Annotated[
    str, typer.Option(help="auto (a GPU where there is one), cpu, cuda or cuda:N; on a GPU in the type that is stored.")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Skip and name bad recordings and empty references.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT if this command wrote it.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def how(given: Mapping[str, Any]) -> "How":
    """Those of a command's arguments, by name, that say how to compress."""
    from paretone.api import How
    from paretone.plan import parse_settings

    said: How = {name: given[name] for name in How.__annotations__ if name in given}  # type: ignore[assignment]
    said["settings"] = parse_settings(given["settings"] or [])
    return said
