"""Options that several commands share, in one wording."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Model = Annotated[
    str,
    typer.Argument(
        help="Local folder in the Hugging Face layout, hub id, or embedded model (digits-hubert, digits-whisper)."
    ),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")]
Sparsity = Annotated[float | None, typer.Option(help="Share of heads, FFN units or layers that goes: 0 to below 1.")]
TargetParams = Annotated[
    float | None, typer.Option(help="Share of all parameters that stays: above 0, to 1; met within 0.5 %.")
]
TargetBytes = Annotated[float | None, typer.Option(help="Share of the bytes of all weights that stays: above 0, to 1.")]
TargetMacs = Annotated[float | None, typer.Option(help="Share of the multiply-accumulates that stays: above 0, to 1.")]
Preset = Annotated[
    Literal["best", "paper", "portable"] | None,
    typer.Option(
        help="best (default): closed form, least modelled error; paper: clustering by variance tiers; "
        "portable: FFN only, loads with stock transformers."
    ),
]
Allocation = Annotated[
    Literal["uniform", "variance-tiers", "error"] | None,
    typer.Option(help="How the budget is shared out, beside --method; uniform by default."),
]
Data = Annotated[
    str, typer.Option(help="JSONL manifest, LibriSpeech or Common Voice folder, hub dataset id, or digits.")
]
Limit = Annotated[int | None, typer.Option(help="At most so many utterances, from the start.", min=1)]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="YAML file: an ordered list of steps.")]
Method = Annotated[
    str | None, typer.Option(help="In place of a preset: closed_form, cluster, magnitude, random, depth.")
]
UnitKind = Annotated[Literal["all", "ffn", "heads"] | None, typer.Option(help="Which units; all by default.")]
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
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method, e.g. outgoing=mean; repeatable."),
]
Seed = Annotated[int | None, typer.Option(help="Of all chance; 0 by default.", min=0)]
Language = Annotated[
    str | None, typer.Option(help="Code of the language, where the data does not tell, e.g. en, da, nl.")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Skip and name bad recordings and empty references.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT if this command wrote it.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
