"""Results put in order: one `Study` per source model and data set, one `Entry` per measured model."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from paretone.errors import UserError
from paretone.report.words import display_name, percent, plain, printable, scaled
from paretone.results.schema import DataInfo, Measures, ModelInfo, Result

ORIGINAL = "original"
NO_PLAN = "no plan"


class _View(BaseModel):
    """The part of a plan that a page shows; other keys are none of its business."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Step(_View):
    """One step of a plan."""

    method: str
    sparsity: float | None = None
    target_params: float | None = None
    target_bytes: float | None = None
    target_macs: float | None = None
    units: str = "all"
    seed: int = 0
    settings: dict[str, Any] = Field(default_factory=dict)

    @property
    def asked(self) -> str:
        """``50 %`` for a sparsity, ``to 70 %`` for a share of the parameters, bytes or MACs, or nothing."""
        if self.sparsity is not None:
            return percent(self.sparsity, 0)
        targets = {"": self.target_params, " bytes": self.target_bytes, " MACs": self.target_macs}
        return "".join(f"to {percent(share, 0)}{what}" for what, share in targets.items() if share is not None)


class Width(_View):
    """One module's width before and after; 0 after means that its layer is gone."""

    name: str
    kind: str
    width_before: int
    width_after: int


class PlanView(_View):
    """What a page needs to know of a plan."""

    source: str
    source_digest: str | None = None
    steps: list[Step]
    parameters_before: int | None = None
    modules: list[Width] = Field(default_factory=list)


@dataclass(frozen=True)
class Entry:
    """One measured model.

    ``result`` is None for a model known only as another one's baseline; ``share`` is of the original's parameters.
    """

    measures: Measures
    result: Result | None
    plan: PlanView | None
    is_original: bool
    share: float | None = None
    series: str = ""

    @property
    def method(self) -> str:
        """The methods of the plan's steps, ``original``, or ``no plan``."""
        if self.plan is None:
            return ORIGINAL if self.is_original else NO_PLAN
        return " + ".join(dict.fromkeys(printable(step.method) for step in self.plan.steps)) or NO_PLAN

    @property
    def settings(self) -> dict[str, str]:
        """What the plan's steps were told beside method and sparsity, as text; joined where steps differ."""
        joined: dict[str, dict[str, None]] = {}
        for step in self.plan.steps if self.plan else []:
            extra = {"units": step.units} if step.units != "all" else {}
            seed = {"seed": step.seed} if step.seed else {}
            for key, value in {**step.settings, **extra, **seed}.items():
                if value is None:
                    continue
                joined.setdefault(printable(key), {})[printable(plain(value))] = None
        return {key: "/".join(values) for key, values in joined.items()}

    @property
    def asked(self) -> str:
        """What was asked for, per step: a sparsity, or ``to`` a share of the parameters; empty where neither was."""
        return " + ".join(filter(None, (step.asked for step in (self.plan.steps if self.plan else []))))

    @property
    def label(self) -> str:
        """A short name inside its study."""
        if self.is_original:
            return ORIGINAL
        if self.plan is None:
            return printable(display_name(self.measures.model.name))
        return f"{self.series} {self.asked}" if self.asked else f"{self.series} {scaled(self.measures.parameters)}"

    @property
    def delta_ci(self) -> tuple[float, float] | None:
        """The 95 % interval of the WER minus the baseline's."""
        return self.result.delta_wer_ci95 if self.result else None


@dataclass(frozen=True)
class Study:
    """Everything measured of one source model on one data set under one normaliser.

    ``entries`` begins with the original where it is known, then goes by series, largest model first.
    """

    name: str
    data: DataInfo
    normaliser: str
    entries: tuple[Entry, ...]

    @property
    def original(self) -> Entry | None:
        """The uncompressed model."""
        return next((entry for entry in self.entries if entry.is_original), None)

    @property
    def series(self) -> dict[str, list[Entry]]:
        """Compressed models by series, largest first."""
        return _by((entry for entry in self.entries if not entry.is_original), lambda entry: entry.series)


def studies(results: Sequence[Result]) -> list[Study]:
    """Sort ``results`` into studies; WERs of different data or normalisers never share one.

    Raises:
        UserError: if a result's plan is not one.
    """
    grouped: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        key = (_source_key(result), result.data.digest, result.normaliser)
        grouped.setdefault(key, []).append(result)
    found = [_study(source, members) for (source, _, _), members in grouped.items()]
    return _with_distinct_names(_with_series(found))


def read_plan(model: ModelInfo) -> PlanView | None:
    """The plan of a measured model, or None where it has none."""
    if model.plan is None:
        return None
    try:
        return PlanView.model_validate(model.plan)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"the result of {model.name!r} holds a plan that cannot be read: {where}: {first['msg']}"
        ) from error


def _source_key(result: Result) -> str:
    """Digest (or name, where no digest is known) of the model that a result's compression began with."""
    if result.baseline is not None and result.baseline.model.plan is None:
        return result.baseline.model.digest
    plan = read_plan(result.model)
    return result.model.digest if plan is None else plan.source_digest or plan.source


def _study(source: str, results: list[Result]) -> Study:
    entries = [_entry(result, result, source) for result in results]
    known = {entry.measures.model.digest for entry in entries}
    for result in results:
        if result.baseline is not None and result.baseline.model.digest not in known:
            known.add(result.baseline.model.digest)
            entries.append(_entry(result.baseline, None, source))
    original = next((entry for entry in entries if entry.is_original), None)
    full = original.measures.parameters if original else _full_size(entries)
    entries = [replace(entry, share=entry.measures.parameters / full if full else None) for entry in entries]
    name = display_name(original.measures.model.name if original else _source_name(entries[0]))
    return Study(name, results[0].data, results[0].normaliser, tuple(entries))


def _entry(measures: Measures, result: Result | None, source: str) -> Entry:
    plan = read_plan(measures.model)
    return Entry(measures, result, plan, is_original=plan is None and measures.model.digest == source)


def _full_size(entries: Iterable[Entry]) -> int | None:
    return next((entry.plan.parameters_before for entry in entries if entry.plan), None)


def _source_name(entry: Entry) -> str:
    return entry.plan.source if entry.plan else entry.measures.model.name


def _with_series(found: list[Study]) -> list[Study]:
    """Name every entry's series: its method, and the settings that tell equal sparsities of it apart in any study."""
    telling: dict[str, dict[str, None]] = {}
    for study in found:
        for method, members in _by(study.entries, lambda entry: entry.method).items():
            keys = dict.fromkeys(key for entry in members for key in entry.settings)
            telling.setdefault(method, {}).update(dict.fromkeys(key for key in keys if _tells_apart(key, members)))
    return [replace(study, entries=_in_order(study.entries, telling)) for study in found]


def _in_order(entries: Iterable[Entry], telling: dict[str, dict[str, None]]) -> tuple[Entry, ...]:
    named = []
    for entry in entries:
        told = [f"{key}={entry.settings[key]}" for key in telling.get(entry.method, {}) if key in entry.settings]
        named.append(replace(entry, series=", ".join([entry.method, *told])))
    named.sort(key=lambda e: (not e.is_original, e.series, -e.measures.parameters, e.asked, e.measures.model.name))
    return tuple(named)


def _tells_apart(key: str, members: list[Entry]) -> bool:
    equal = _by((entry for entry in members if entry.asked), lambda entry: entry.asked)
    return any(len({entry.settings.get(key) for entry in group}) > 1 for group in equal.values())


def _by(entries: Iterable[Entry], key: Callable[[Entry], str]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(key(entry), []).append(entry)
    return found


def _with_distinct_names(found: list[Study]) -> list[Study]:
    """Add the data set, then the normaliser, to the names of studies that would read the same."""
    for extra in (lambda s: f" on {display_name(s.data.name)}", lambda s: f" ({s.normaliser})"):
        names = [study.name for study in found]
        found = [replace(s, name=s.name + extra(s)) if names.count(s.name) > 1 else s for s in found]
    return found
