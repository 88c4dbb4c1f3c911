"""A model trained further."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paretone.errors import UserError
from paretone.study.found import Found, absolute, data_words
from paretone.study.stages import Stage

RESUMES = True
CHECKPOINT_EVERY_S = 60.0


def stage(
    section: Mapping[str, Any], model: "str | Stage", revision: str | None, found: Found, *, processes: int
) -> Stage:
    """The stage that fine-tunes a model, or what another stage left of it; words of `paretone.finetune`."""
    from paretone.train import Settings

    if processes > 1:
        raise UserError(f"budget: finetune works in one process, and {processes} are asked for; only slam shares work")
    data, dev = section.get("data"), section.get("dev")
    if data is None:
        raise UserError("finetune.data is missing: what is to be learned from")
    how = data_words(section)
    words = {k: v for k, v in section.items() if k not in ("data", "dev", *how)}
    try:
        settings = vars(Settings(**words))
    except TypeError as error:
        raise UserError(f"finetune: {error}; words: data, dev, {', '.join(vars(Settings()))}") from error
    given = {"data": absolute(data), "dev": dev and absolute(dev), "how": how, "settings": words}
    identity = {
        "data": found.data(data, split="train", **how),
        "dev": dev and found.data(dev, split="dev", **{k: v for k, v in how.items() if k != "limit"}),
        "settings": settings,
    }
    return found.upon("finetune", model, revision, given, identity)


def run(given: Mapping[str, Any], inputs: Mapping[str, Path], out: Path) -> None:
    """Trains; goes on from the last checkpoint."""
    from paretone.api import finetune

    finetune(
        inputs.get("model", given.get("model")),  # type: ignore[arg-type]
        out,
        given["data"],
        dev=given["dev"],
        revision=given.get("revision"),
        checkpoint_every_s=CHECKPOINT_EVERY_S,
        **given["how"],
        **given["settings"],
    )
