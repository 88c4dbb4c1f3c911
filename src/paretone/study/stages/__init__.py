"""The stages of a cell: one file each, found by its name.

A file has ``run(given, inputs, out)``, which does the work and writes the folder ``out`` itself, and ``RESUMES``, which
says whether what it left when it was cut is to be gone on with. ``inputs`` are folders of stages by role; the folder of
one that only makes it quicker may be missing.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from typing import Any

from paretone.version import __version__

DIGITS = 20  # of a digest, in names of folders: 80 bits


@dataclass(frozen=True, eq=False)
class Stage:
    """A piece of work whose outcome a store keeps.

    Attributes:
        kind: the file of this package that does it.
        given: what ``run`` is told; JSON.
        identity: everything in ``given`` that decides the outcome, with digests in place of paths and names; JSON.
        inputs: stages whose folders it reads, by role.
        after: stages that make it quicker and don't change what comes out, by role; it does without them, too.
    """

    kind: str
    given: Mapping[str, Any]
    identity: Mapping[str, Any]
    inputs: Mapping[str, "Stage"] = field(default_factory=dict)
    after: Mapping[str, "Stage"] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """The name of its folder."""
        inputs = {role: stage.digest for role, stage in self.inputs.items()}
        text = json.dumps([self.kind, __version__, self.identity, inputs], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]

    @property
    def place(self) -> str:
        """Its folder, from the store's."""
        return f"{self.kind}/{self.digest}"

    def __hash__(self) -> int:
        return hash(self.place)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stage) and self.place == other.place

    def needs(self) -> Iterator["Stage"]:
        """The stages right before it."""
        yield from self.inputs.values()
        yield from self.after.values()

    def behind(self, quicker: Mapping["Stage", Mapping[str, "Stage"]]) -> "Stage":
        """The same stage, where it and all that it stands on come after what makes them quicker."""
        inputs = {role: stage.behind(quicker) for role, stage in self.inputs.items()}
        return replace(self, inputs=inputs, after={**self.after, **quicker.get(self, {})})

    def chain(self) -> list["Stage"]:
        """Itself, then all that it stands on, nearest first."""
        found: list[Stage] = [self]
        for stage in found:
            found += [need for need in stage.needs() if need not in found]
        return found


def work_of(kind: str) -> Any:
    """The module that does a kind of stage."""
    return import_module(f"{__name__}.{kind}")
