"""What is found out of a model once, for all that is made of it by one method, at any size."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paretone.study.stages import Stage

RESUMES = False
FILE = "findings.npz"
WORTH = {"analyse": 2, "tree_of": 3}  # compressions, so that it saves more than it costs


def stages_for(compressions: Sequence[Stage]) -> dict[Stage, Stage]:
    """For each compression that can make use of what others can, too, the stage that finds it out."""
    alike: dict[str, list[Stage]] = {}
    for compression in compressions:
        if _finder(_first_step(compression)):
            alike.setdefault(json.dumps(_identity(compression), sort_keys=True), []).append(compression)
    made: dict[Stage, Stage] = {}
    for group in alike.values():
        if len(group) >= WORTH[_finder(_first_step(group[0]))]:
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
    settings = step["settings"] if _finder(step) == "analyse" else {}  # no setting changes a tree
    return {"method": step["method"], "settings": settings, "units": step["units"]}


def _finder(step: Mapping[str, Any]) -> str:
    """The function of a step's method that finds out, from weights alone, what serves all sizes; or an empty word."""
    from paretone.methods import companion, takes_tree

    if step["calibrate"] or step["inputs"] != "gaussian":
        return ""
    if companion(step["method"], "analyse") is not None:
        return "analyse"
    is_whole = any(step[key] is not None for key in ("sparsity", "target_params", "target_bytes", "target_macs"))
    return "tree_of" if is_whole and takes_tree(step["method"], step["settings"]) else ""


def run(given: Mapping[str, Any], inputs: Mapping[str, Path], out: Path) -> None:
    """Asks the method."""
    from paretone.transform.findings import find_out, save_findings

    found = find_out(
        given["model"],
        given["method"],
        settings=given["settings"],
        units=given["units"],
        revision=given["revision"],
    )
    out.mkdir()
    save_findings(found, out / FILE)
