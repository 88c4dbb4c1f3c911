"""A model made smaller."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paretone.errors import UserError, did_you_mean
from paretone.study.found import Found, absolute
from paretone.study.stages import Stage
from paretone.study.stages.analyse import FILE

RESUMES = False


def stage(section: Mapping[str, Any], model: str, revision: str | None, found: Found) -> Stage:
    """The stage that compresses ``model`` by the words of `paretone.api.How`, or by a recipe's ``steps``."""
    recipe = _recipe(section)
    given = recipe.model_dump(mode="json")
    heard = [
        found.data(step["calibrate"], labelled=False, limit=step.get("calibrate_limit"))
        for step in given["steps"]
        if step.get("calibrate")
    ]
    steps = [{k: v for k, v in step.items() if k != "calibrate"} for step in given["steps"]]
    return Stage(
        "compress",
        {"model": absolute(model), "revision": revision, "recipe": given},
        {"model": found.model(model, revision), "recipe": {**given, "steps": steps}, "calibrate": heard},
    )


def _recipe(section: Mapping[str, Any]) -> Any:
    from paretone.api import How, request
    from paretone.plan import Recipe, checked_recipe

    if "steps" in section:
        return checked_recipe(dict(section), "compress")
    unknown = sorted(set(section) - (set(How.__annotations__) - {"plan"}))
    if unknown:
        raise UserError(
            f"compress.{unknown[0]} is no word of it{did_you_mean(unknown[0], How.__annotations__) or ';'} "
            f"there are steps, {', '.join(How.__annotations__)}"
        )
    recipe = request(**section)
    assert isinstance(recipe, Recipe)
    return recipe


def run(given: Mapping[str, Any], inputs: Mapping[str, Path], out: Path) -> None:
    """Compresses."""
    from paretone.plan import Recipe
    from paretone.transform import compress
    from paretone.transform.findings import read_findings

    recipe = Recipe.model_validate(given["recipe"])  # checked when it was planned
    known = inputs["findings"] / FILE if "findings" in inputs else None
    compress(
        given["model"],
        out,
        recipe,
        revision=given["revision"],
        command="paretone study run",
        findings=read_findings(known) if known is not None and known.exists() else None,
    )
