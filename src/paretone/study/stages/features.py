"""What an encoder gives at several depths, from one pass: for all trainings behind it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paretone.study.stages import Stage

RESUMES = True


def can_share(encoder: Any) -> bool:
    """Whether an encoder's features are of its first layers as they are stored."""
    return all(getattr(encoder, way) is None for way in ("drop", "drop_middle", "drop_similar", "distil"))


def stages_for(trainings: Sequence[Stage]) -> dict[Stage, Stage]:
    """For each training that reads features the stage that makes them, at all depths that are wanted together."""
    alike: dict[str, list[Stage]] = {}
    for training in trainings:
        if training.given["shared"]:
            alike.setdefault(_key(training), []).append(training)
    made: dict[Stage, Stage] = {}
    for group in alike.values():
        depths = sorted({training.given["recipe"]["encoder"]["keep"] or 0 for training in group})
        first = group[0]
        stage = Stage(
            "features",
            {"training": dict(first.given), "depths": depths},
            {"of": _key(first), "depths": depths},
            dict(first.inputs),
        )
        made |= dict.fromkeys(group, stage)
    return made


def _key(training: Stage) -> str:
    """Equal for trainings that hear the same through the same encoder."""
    recipe, identity = training.given["recipe"], training.identity
    encoder = identity["encoder"] or training.inputs["encoder"].digest
    return f"{encoder} {identity['train']} {recipe['pad_to_30s']}"


def run(given: Mapping[str, Any], inputs: Mapping[str, Path], out: Path) -> None:
    """Fills the store's cache with what is missing; a note is all that the stage itself leaves."""
    import json

    from paretone.study.stages.train import recipe_of
    from paretone.train.slam.recipe import checked_slam_recipe
    from paretone.train.slam.training import encoder_depth, fill_features

    content = recipe_of(given["training"], inputs, out.parents[2])
    content["encoder"] = {key: value for key, value in content["encoder"].items() if key != "keep"}
    recipe = checked_slam_recipe(content, "slam")
    whole = encoder_depth(recipe)
    told = fill_features(recipe, [depth or whole for depth in given["depths"]])
    out.mkdir()
    (out / "features.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
