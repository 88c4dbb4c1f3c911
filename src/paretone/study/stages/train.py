"""A speech LLM trained."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paretone.errors import UserError
from paretone.study.found import Found, absolute, data_words
from paretone.study.stages import Stage, features

RESUMES = True
CHECKPOINT_EVERY_S = 60.0
FEATURES = "features"  # where the store keeps what encoders give


def stage(section: Mapping[str, Any], encoder: Stage | None, found: Found, *, processes: int) -> Stage:
    """The stage that trains what ``section``, a recipe of ``paretone slam train``, says.

    Args:
        encoder: makes the encoder, in place of the recipe's own.
    """
    from paretone.train.slam.recipe import checked_slam_recipe

    content = dict(section)
    kept = content.pop("features", None)
    if kept is not None and set(kept) - {"gb"}:
        raise UserError("slam.features: the store keeps them; only gb may be said")
    recipe = checked_slam_recipe(content, "slam")
    if recipe.out is not None:
        raise UserError("slam.out has no effect: the store says where runs lie; leave it out")
    source = recipe.encoder
    _check_depth(recipe, found)
    shared = features.can_share(source)
    data, how = recipe.data, data_words(recipe.data.model_dump())
    identity: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json", exclude={"out", "features", "data"})
        | {"encoder": source.model_dump(mode="json", exclude={"model", "revision"}), "text": data.text},
        "encoder": None if encoder else found.model(source.model, source.revision),
        "language_model": found.model(recipe.language_model.model, recipe.language_model.revision),
        "train": found.data(data.train, split="train", **how),
        "dev": data.dev and found.data(data.dev, split="dev", **(how | {"limit": data.dev_limit})),
        "start": recipe.projector.start and found.model(recipe.projector.start),
        "features": shared,
        "processes": processes,
    }
    del identity["recipe"]["language_model"]
    if source.drop_similar is not None:
        similar = source.drop_similar
        identity["similar"] = found.data(similar.data, labelled=False, limit=similar.limit)
    recipe = _with_paths(recipe)
    given = {"recipe": recipe.model_dump(mode="json", exclude={"out"}), "gb": (kept or {}).get("gb"), "shared": shared}
    inputs = {} if encoder is None else {"encoder": encoder}
    return Stage("train", given | {"processes": processes}, identity, inputs)


def _check_depth(recipe: Any, found: Found) -> None:
    """Refuses more layers than there are; compressing leaves as many as it finds."""
    from paretone.train.slam.layers import kept_layers
    from paretone.train.slam.training import encoder_depth

    encoder = recipe.encoder
    if encoder.drop_similar is None and found.is_here(encoder.model, encoder.revision):
        kept_layers(encoder, encoder_depth(recipe), recipe.pad_to_30s)


def _with_paths(recipe: Any) -> Any:
    """The recipe with paths that hold wherever a worker stands."""
    data = recipe.data.model_copy(
        update={"train": absolute(recipe.data.train), "dev": recipe.data.dev and absolute(recipe.data.dev)}
    )
    encoder = recipe.encoder.model_copy(update={"model": absolute(recipe.encoder.model)})
    lm = recipe.language_model.model_copy(update={"model": absolute(recipe.language_model.model)})
    return recipe.model_copy(update={"data": data, "encoder": encoder, "language_model": lm})


def recipe_of(given: Mapping[str, Any], inputs: Mapping[str, Path], store: Path) -> dict[str, Any]:
    """The recipe to train by: with what stages made, and the store's features."""
    recipe = json.loads(json.dumps(given["recipe"]))
    if "encoder" in inputs:
        recipe["encoder"] |= {"model": str(inputs["encoder"]), "revision": None}
    if given["shared"]:
        gb = {} if given["gb"] is None else {"gb": given["gb"]}
        recipe["features"] = {"cache": str(store / FEATURES), **gb}
    return {key: value for key, value in recipe.items() if value is not None}


def run(given: Mapping[str, Any], inputs: Mapping[str, Path], out: Path) -> None:
    """Trains; goes on from the last checkpoint."""
    from paretone.api import train_slam
    from paretone.train.slam.recipe import checked_slam_recipe

    content = recipe_of(given, inputs, out.parents[2])
    if given["processes"] > 1:
        _run_shared(content, out, given["processes"])
        return
    recipe = checked_slam_recipe(content, "slam")
    train_slam(recipe, out, checkpoint_every_s=CHECKPOINT_EVERY_S, command="paretone study run")


def _run_shared(content: Mapping[str, Any], out: Path, processes: int) -> None:
    """Trains with several processes, on the GPUs of this bundle where there are some; torchrun minds them."""
    recipe = out.with_name("recipe.yaml")
    recipe.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    words += ["-m", "paretone", "slam", "train", str(recipe), "--out", str(out)]
    words += ["--checkpoint-every", str(CHECKPOINT_EVERY_S)]
    done = subprocess.run(words, capture_output=True, text=True, env=dict(os.environ), preexec_fn=_die_together)
    if done.returncode:
        raise RuntimeError(f"torchrun ended with {done.returncode}:\n{done.stderr[-4000:]}")


def _die_together() -> None:
    """Asks Linux to end this process when its parent ends, even by SIGKILL."""
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
