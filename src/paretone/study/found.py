"""What a study's words stand for on this machine: digests of models and data, each looked at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paretone.errors import UserError
from paretone.study.stages import Stage

DATA_WORDS = ("limit", "language", "skip_bad")


class Found:
    """Digests of models and data sets.

    Attributes:
        missing: what is not on this machine, in the words of the error; a study with any can be planned and not run.
    """

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}
        self._models: dict[Any, str] = {}
        self._data: dict[Any, str] = {}

    def model(self, name: str, revision: str | None = None) -> str:
        """The digest of a checkpoint."""
        from paretone.checkpoint import locate, open_checkpoint

        key = (name, revision)
        if key not in self._models:
            try:
                self._models[key] = open_checkpoint(locate(name, revision)).digest()
            except UserError as error:
                self._models[key] = self._missing(f"model {name}", error)
        return self._models[key]

    def upon(
        self,
        kind: str,
        model: "str | Stage",
        revision: str | None,
        given: Mapping[str, Any],
        identity: Mapping[str, Any],
    ) -> Stage:
        """A stage that reads a model, by its name or as another stage leaves it."""
        if isinstance(model, Stage):
            return Stage(kind, given, identity, {"model": model})
        named = {"model": absolute(model), "revision": revision}
        return Stage(kind, {**given, **named}, {**identity, "model": self.model(model, revision)})

    def is_here(self, name: str, revision: str | None = None) -> bool:
        """Whether a model is on this machine."""
        return not self.model(name, revision).startswith("missing")

    def data(self, name: str, *, split: str = "test", labelled: bool = True, **words: Any) -> str:
        """The digest of a data set; ``words`` as those of ``open_data``."""
        from paretone.data import open_data

        key = (name, split, labelled, *sorted(words.items()))
        if key not in self._data:
            try:
                self._data[key] = open_data(name, split=split, labelled=labelled, **words).digest
            except UserError as error:
                self._data[key] = self._missing(f"data {name}", error)
        return self._data[key]

    def _missing(self, what: str, error: UserError) -> str:
        self.missing[what] = str(error)
        return stand_in(what)


def stand_in(what: str) -> str:
    """In place of the digest of what is not here."""
    return f"missing: {what}"


def data_words(section: Mapping[str, Any]) -> dict[str, Any]:
    """Those keys of a section that say how its data is opened."""
    return {word: section[word] for word in DATA_WORDS if section.get(word) is not None}


def absolute(name: str) -> str:
    """A path as one that holds wherever a worker stands; other names as they are."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name
