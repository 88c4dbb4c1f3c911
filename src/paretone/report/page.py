"""The report page: one HTML file that loads nothing, and its plots as files beside it."""

import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from paretone.errors import UserError
from paretone.folders import write_file
from paretone.report import words
from paretone.report.colours import ERRORS, GRID, INK, MUTED, PAPER, SERIES
from paretone.report.inline import inline_svg
from paretone.report.load import read_results
from paretone.report.plots import PLOTS, Look, looks, plots_of, render
from paretone.report.speech_llms import GUARDS, systems
from paretone.report.story import TOLERANCES, Story, joint_headline, tell
from paretone.report.strips import profiles
from paretone.report.study import UNIFORM, Entry, Step, Study, Width, studies
from paretone.report.waterfall import chains
from paretone.results.schema import GroupScores, Result, WordChange
from paretone.results.scoring import LENGTHS

TEMPLATE = "page.html.j2"
STYLE = "page.css"
COLOURS = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    PAPER: "paper",
    **{colour: f"series{place}" for place, colour in enumerate(SERIES)},
    **{colour: name for name, colour in ERRORS.items()},
}
CAPTIONS = {
    "pareto": "WER against real parameters of {}; bars are 95 % intervals, the star is the original",
    "errors": "Substitutions, deletions and insertions per 100 reference words of {}",
    "waterfall": "What each step added to the WER of {}, and what it left of parameters, bytes and time",
    "widths": "Width kept of every module of {}, by layer",
}
FILTERS = (
    words.count,
    words.display_name,
    words.fixed,
    words.p_text,
    words.percent,
    words.percent_range,
    words.point_range,
    words.points,
    words.scaled,
    words.three_digits,
)
MOST_HEARD = 4
KINDS = ("svg", "png")


def write_report(results: Iterable[Path], out: Path) -> None:
    """Write a page about ``results`` to ``out``, and its plots as SVG and PNG to ``<out stem>_files`` beside it.

    Equal results give equal bytes; the page needs no network and no other file.

    Args:
        results: result files, folders that hold one, or folders of such folders.

    Raises:
        UserError: if a result is missing or is none, or ``out`` cannot be written.
    """
    out = Path(out)
    if out.is_dir():
        raise UserError(f"{out} is a folder; give the page a file name, such as {out / 'report.html'}")
    found = studies(sorted(read_results(results), key=lambda result: result.model_dump_json()))
    folder = out.parent / f"{out.stem}_files"
    look, plots = looks(found), plots_of(found)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page = render_page(found, look, folder.name)
        for name, (draw, height_in) in plots.items():
            drawn = [study for study in found if chains(study)] if name == "waterfall" else found
            for kind, content in zip(KINDS, render(draw, height_in, drawn, look, KINDS), strict=True):
                (folder / f"{name}.{kind}").write_bytes(content)
        write_file(out, page)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); give a place that can") from error


def render_page(found: Sequence[Study], look: Look, folder: str) -> str:
    """The page's HTML; ``folder`` is where its plot files lie."""
    environment = environment_of()
    environment.filters["heard"] = heard
    stories = [tell(study) for study in found]
    runs = [entry.result for study in found for entry in study.entries if entry.result]
    sections = [_section(place, story, look) for place, story in enumerate(stories)]
    return environment.get_template(TEMPLATE).render(
        headline=joint_headline(stories),
        sections=sections,
        grouped=[name for name in ("speakers", "languages", "lengths") if any(each[name] for each in sections)],
        tolerances=TOLERANCES,
        guards=GUARDS,
        style=style_sheet(),
        folder=quote(folder),
        plots=list(plots_of(found)),
        commands=list(dict.fromkeys(words.shell(run.command) for run in runs)),
        builds=_builds(found),
        machines=_distinct(_machine(run) for run in runs),
        data_sets=_distinct(_data(run) for run in runs),
    )


def environment_of() -> Environment:
    """Jinja with the filters of all pages; what is undefined is an error, and all text is escaped and printable."""
    environment = Environment(
        loader=PackageLoader("paretone.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update({filter.__name__: filter for filter in FILTERS})
    return environment


def style_sheet() -> Markup:
    """The style of all pages."""
    return Markup(files("paretone.report").joinpath(STYLE).read_text(encoding="utf-8"))


def _finalize(value: Any) -> Any:
    return words.printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _section(place: int, story: Story, look: Look) -> dict[str, Any]:
    """What the template needs of one study."""
    study = story.study
    return {
        "id": f"model{place}",
        "study": study,
        "batches": [[study.original]] * (study.original is not None) + list(study.series.values()),
        "story": story,
        "figures": {name: _figure(name, place, study, look) for name in plots_of([study]) if _has(name, study)},
        "chains": chains(study),
        "profiles": profiles(study),
        "modules": {name: width for row in reversed(profiles(study)) for name, width in row.widths.items()},
        "systems": systems(study),
        "speakers": _groups(study, "by_speaker"),
        "languages": _groups(study, "by_language"),
        "lengths": _groups(study, "by_length"),
        "words": [(entry, entry.result.word_changes) for entry in study.entries if entry.result],
        "open": story.pick or next((entry for entry in study.entries if entry.result), None),
        "against": _baselines(study),
    }


def _has(name: str, study: Study) -> bool:
    return name != "widths" or bool(profiles(study))


def _figure(name: str, place: int, study: Study, look: Look) -> Markup:
    draw, height_in = PLOTS[name]
    (svg,) = render(draw, height_in, [study], look, ["svg"])
    caption = CAPTIONS[name].format(words.printable(study.name))
    description = "; ".join(
        f"{entry.label}: {words.count(entry.measures.parameters)} parameters, WER {words.percent(entry.measures.wer)}"
        for entry in study.entries
    )
    # inline_svg escapes every text and attribute that it writes
    return Markup(inline_svg(svg, name=f"{name}{place}", title=caption, description=description, colours=COLOURS))


def _baselines(study: Study) -> list[str]:
    """Names of the models that differences refer to."""
    named = {e.result.baseline.model.digest: e.result.baseline for e in study.entries if e.result and e.result.baseline}
    return [words.display_name(baseline.model.name) for baseline in named.values()]


def _groups(study: Study, kind: str) -> list[tuple[str, int, list[GroupScores | None]]]:
    """Per speaker, language or length of recording: its name, its words, and its scores in each entry.

    Empty where there is only one language or length.
    """
    columns: list[dict[str, GroupScores]] = [getattr(entry.measures, kind) for entry in study.entries]
    found = {name for column in columns for name in column}
    names = sorted(found, key=LENGTHS.index if kind == "by_length" else None)
    if not names or (len(names) == 1 and kind != "by_speaker"):
        return []
    rows = [(name, [column.get(name) for column in columns]) for name in names]
    return [(name, max(scores.words for scores in row if scores), row) for name, row in rows]


def heard(change: WordChange) -> str:
    """What stood in a word's place, most frequent first: ``nine ×3, nothing ×1``."""
    ranked = sorted(change.heard_as.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{hypothesis or '(nothing)'} ×{times}" for hypothesis, times in ranked[:MOST_HEARD]]
    return ", ".join([*named, "…"] if len(ranked) > MOST_HEARD else named)


def _builds(found: Sequence[Study]) -> list[dict[str, Any]]:
    """The command that makes each compressed model, with its plan where flags cannot say it."""
    builds: dict[str, dict[str, Any]] = {}
    for entry in (entry for study in found for entry in study.entries if entry.plan is not None):
        name = f"plan-{len(builds) + 1}.json"
        command, whole = _compress_command(entry, name)
        plan = None if whole else json.dumps(entry.measures.model.plan, ensure_ascii=False, indent=1)
        builds.setdefault(entry.measures.model.path, {"command": command, "plan": plan, "name": name})
    return list(builds.values())


def _compress_command(entry: Entry, plan_name: str) -> tuple[str, bool]:
    """A ``paretone compress`` line, and whether it says the plan whole; else it refers to a plan file."""
    plan = entry.plan
    assert plan is not None
    start = ["paretone", "compress", plan.source, entry.measures.model.path]
    if len(plan.steps) != 1 or not _flags_say(plan.steps[0], plan.modules):
        return words.shell([*start, "--plan", plan_name]), False
    step = plan.steps[0]
    how = ["--preset", step.preset] if step.preset else ["--method", step.method]
    if not step.preset and step.allocation != UNIFORM:
        how += ["--allocation", step.allocation]
    assert step.budget is not None
    name, share = step.budget
    units = ["--units", step.units] if step.units != "all" else []
    settings = [part for key, value in step.settings.items() for part in _set_flag(key, value)]
    flags = [*how, f"--{name.replace('_', '-')}", f"{share:g}", *units, *settings, "--seed", str(step.seed)]
    return words.shell([*start, *flags]), True


def _set_flag(key: str, value: object) -> list[str]:
    return [] if value is None else ["--set", f"{key}={words.plain(value)}"]


def _flags_say(step: Step, modules: Sequence[Width]) -> bool:
    """Whether flags alone lead to the plan: it records so itself, or one share explains every width of an older one."""
    if step.budget is None or any(isinstance(value, (list, dict)) for value in step.settings.values()):
        return False
    if step.recipe_only is not None:
        return not step.recipe_only
    return step.allocation == UNIFORM and _share_explains(step, modules)


def _share_explains(step: Step, modules: Sequence[Width]) -> bool:
    changed = [module for module in modules if module.width_after != module.width_before]
    if all(module.width_after == 0 for module in changed):
        return True
    kept = [module.width_after / module.width_before for module in changed]
    share = median(kept) if step.sparsity is None else 1 - step.sparsity
    return all(abs(module.width_after - share * module.width_before) <= 1 for module in changed)


def _machine(run: Result) -> dict[str, str]:
    machine = run.machine
    return {
        "processor": f"{machine.cpu}, {machine.cores} cores, {machine.threads} threads used",
        "memory": words.scaled(machine.memory_bytes, "B"),
        "versions": f"paretone {run.version}, Python {machine.python}, torch {machine.torch}, "
        f"transformers {machine.transformers}",
    }


def _data(run: Result) -> dict[str, Any]:
    data = run.data
    decoding = {
        key: value for key, value in run.decoding.items() if key != "guards"
    }  # what came out, not what was asked
    return {
        "data": data.name,
        "from": data.path,
        "attribution": data.attribution or "not given; recordings keep the licence of their data set",
        "digest": data.digest,
        "size": f"{words.count(data.utterances)} utterances, {words.count(run.words)} words, "
        f"{words.duration(data.audio_s)} of audio",
        "left out": "; ".join(f"{skipped.audio} ({skipped.reason})" for skipped in data.skipped) or "nothing",
        "normaliser": run.normaliser,
        "decoding": f"{run.model.family}: " + ", ".join(f"{key} {words.plain(v)}" for key, v in decoding.items()),
        "seed": str(run.seed),
    }


def _distinct(rows: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    return list({json.dumps(row): row for row in rows}.values())
