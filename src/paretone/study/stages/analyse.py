"""What each size of each module of a model would cost: for all that is made of it by one method, at any size."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paretone.study.stages import Stage

RESUMES = False
FILE = "analyses.npz"


def stages_for(compressions: Sequence[Stage]) -> dict[Stage, Stage]:
    """For each compression that starts from what others start from, too, the stage that finds it out."""
    alike: dict[str, list[Stage]] = {}
    for compression in compressions:
        if _can_share(_first_step(compression)):
            alike.setdefault(json.dumps(_identity(compression), sort_keys=True), []).append(compression)
    made: dict[Stage, Stage] = {}
    for group in alike.values():
        if len(group) > 1:
            source = {key: group[0].given[key] for key in ("model", "revision")}
            stage = Stage("analyse", {**source, **_asked(_first_step(group[0]))}, _identity(group[0]))
            made |= dict.fromkeys(group, stage)
    return made


def _first_step(compression: Stage) -> dict[str, Any]:
    step: dict[str, Any] = compression.given["recipe"]["steps"][0]
    return step


def _identity(compression: Stage) -> dict[str, Any]:
    return {"model": compression.identity["model"], **_asked(_first_step(compression))}


def _asked(step: Mapping[str, Any]) -> dict[str, Any]:
    return {key: step[key] for key in ("method", "settings", "units")}


def _can_share(step: Mapping[str, Any]) -> bool:
    """Whether a first step's method has an error model and reads the source's weights alone."""
    from paretone.methods import companion

    return companion(step["method"], "analyse") is not None and not step["calibrate"] and step["inputs"] == "gaussian"


def run(given: Mapping[str, Any], inputs: Mapping[str, Path], out: Path) -> None:
    """Asks the method's error model."""
    from paretone.transform.analyses import analyse, save_analyses

    found = analyse(
        given["model"],
        given["method"],
        settings=given["settings"],
        units=given["units"],
        revision=given["revision"],
    )
    out.mkdir()
    save_analyses(found, out / FILE)
