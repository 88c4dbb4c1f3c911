"""A model measured: the end of every cell."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paretone.errors import UserError, did_you_mean
from paretone.study.found import Found, absolute, data_words
from paretone.study.stages import Stage

RESUMES = False
WORDS = ("data", "limit", "language", "skip_bad", "batch_s", "normaliser", "device", "allow_seen", "repetition")


def stage(section: Mapping[str, Any], model: "str | Stage", revision: str | None, found: Found) -> Stage:
    """The stage that measures a model; words of `paretone.evaluate`, and ``repetition``, which only counts."""
    unknown = sorted(set(section) - set(WORDS))
    if unknown:
        raise UserError(
            f"evaluate.{unknown[0]} is no word of it{did_you_mean(unknown[0], WORDS) or ';'} words: {', '.join(WORDS)}"
        )
    if section.get("data") is None:
        raise UserError("evaluate.data is missing: what is to be recognised")
    how = {k: v for k, v in section.items() if k not in ("data", "repetition") and v is not None}
    given: dict[str, Any] = {"data": absolute(section["data"]), "how": how}
    identity = {
        "data": found.data(section["data"], **data_words(section)),
        "how": {k: v for k, v in how.items() if k != "limit"},
        "repetition": section.get("repetition", 1),
    }
    return found.upon("evaluate", model, revision, given, identity)


def run(given: Mapping[str, Any], inputs: Mapping[str, Path], out: Path) -> None:
    """Recognises, counts, and writes the receipt."""
    from paretone.evaluation import evaluate

    evaluate(
        inputs.get("model", given.get("model")),  # type: ignore[arg-type]
        given["data"],
        out=out,
        revision=given.get("revision"),
        command=["paretone", "study", "run"],
        **given["how"],
    )
