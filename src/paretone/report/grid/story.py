"""What a grid's numbers say, in plain words, and no more than they say."""

from collections.abc import Sequence

from paretone.report.grid.analysis import Analysis, Panel
from paretone.report.grid.comparisons import Beside
from paretone.report.grid.drawing_effects import term_name
from paretone.report.grid.front import WHOLE
from paretone.report.grid.pooling import Way
from paretone.report.grid.tables import said_reference
from paretone.report.words import count, p_text, percent, percent_range, point_range, points, scaled
from paretone.results.significance import ALPHA

MOST_NAMED = 4


def headline_of(analysis: Analysis) -> str:
    """One sentence: how many comparisons there are, and how many are significant."""
    members = analysis.family.members
    if not members:
        return f"{analysis.grid.name}: {_ways(len(analysis.ways))}, nothing compared"
    worse, better = len(_sure(members, 1)), len(_sure(members, -1))
    start = f"Beside {said_reference(analysis.grid)}: "
    if not worse and not better:
        return f"{start}no significant difference in {_ways(len(members))}"
    return f"{start}of {_ways(len(members))} {worse} with significantly more errors, {better} with significantly fewer"


def sentences_of(analysis: Analysis) -> list[str]:
    """About the whole grid."""
    return [*_about_family(analysis), *_about_fit(analysis)]


def _about_family(analysis: Analysis) -> list[str]:
    members = analysis.family.members
    if not members:
        return ["No way was set beside another, so nothing is said to be significant."]
    worse, better = _sure(members, 1), _sure(members, -1)
    unsure = len(members) - len(worse) - len(better)
    said = [
        f"Of {_ways(len(members))} set beside their reference, {len(worse)} with significantly more errors, "
        f"{len(better)} with significantly fewer; for {unsure} no difference is shown, "
        "which is no proof that there is none."
    ]
    sure = [*worse, *better]
    several = [member for member in sure if len(member.seeds) > 1]
    if several:
        agree = sum(member.seeds_agree for member in several)
        said.append(f"In {agree} of {len(several)} significant differences every pair of seeds points the same way.")
    elif sure:
        said.append("There is one seed only: that another training would come out alike is not shown.")
    return said


def _about_fit(analysis: Analysis) -> list[str]:
    fit = analysis.fit
    crossed = [] if fit is None else [term for term in fit.coefficients if len(term.terms) > 1]
    if not crossed:
        return []
    sure = [term for term in crossed if term.p_holm is not None and term.p_holm < ALPHA]
    if not sure:
        return [f"None of {len(crossed)} interactions in the linear model is significant after Holm."]
    named = [f"{term_name(analysis, term)} ({points(term.estimate)} points, {point_range(term.ci95)})" for term in sure]
    return [f"Significant after Holm are {len(sure)} of {len(crossed)} interactions: {_some(named)}."]


def panel_sentences(analysis: Analysis, panel: Panel) -> list[str]:
    """About the ways of one panel."""
    best = min(panel.ways, key=lambda way: way.wer)
    # the best of many is lucky too, so its interval is no promise
    said = [f"Fewest errors: {best.name}, {percent(best.wer)} WER ({percent_range(best.ci95)})."]
    own = {way.key for way in panel.ways}
    members = [member for member in analysis.family.members if member.way.key in own]
    if not members:
        return said
    for sign, what in ((-1, "fewer"), (1, "more")):
        found = _sure(members, sign)
        if found:
            ranked = sorted(found, key=lambda m: -abs(m.bootstrap.delta))
            named = [f"{m.way.name} ({points(m.bootstrap.delta)} points, p {_p(m.p_holm)})" for m in ranked]
            said.append(f"Significantly {what} errors than the reference: {_some(named)}.")
    if not any(member.is_sure for member in members):
        said.append(f"None of {_ways(len(members))} differs significantly from its reference.")
    return said + _smallest(members)


def _smallest(members: Sequence[Beside]) -> list[str]:
    """The smallest way that is not shown to be worse."""
    worse = {member.way.key for member in _sure(members, 1)}
    fine = [m for m in members if m.way.key not in worse and _size(m.way) < _size(m.reference)]
    if not fine:
        return []
    least = min(fine, key=lambda member: (_size(member.way), member.bootstrap.delta))
    return [
        f"The smallest way that is not shown to make more errors than its reference: {least.way.name}, "
        f"{scaled(_size(least.way))} parameters against {scaled(_size(least.reference))}, "
        f"{points(least.bootstrap.delta)} points (interval before Holm {point_range(least.bootstrap.ci95)})."
    ]


def _size(way: Way) -> int:
    return way.parameters[WHOLE]


def warnings_of(analysis: Analysis) -> list[str]:
    """What is missing."""
    grid = analysis.grid
    said = []
    if grid.failed:
        said.append(f"{_cells(len(grid.failed))} failed and {_is(len(grid.failed))} in no number on this page.")
    if grid.waiting:
        said.append(f"{_cells(grid.waiting)} {_is(grid.waiting)} not measured yet: everything here is preliminary.")
    if analysis.family.alone:
        named = _some([way.name for way in analysis.family.alone])
        said.append(f"{_ways(len(analysis.family.alone))} with no measured reference, so not compared: {named}.")
    if analysis.family.is_too_large:
        said.append(
            f"{count(len(analysis.family.members))} comparisons are too many: with {count(analysis.family.draws)} "
            "draws none can be significant after Holm. Compare fewer in one study."
        )
    seeds = [len(way.cells) for way in analysis.ways]
    if min(seeds) != max(seeds):
        said.append(
            f"Ways have between {min(seeds)} and {max(seeds)} seeds; comparisons use those that both sides have."
        )
    return said


def _sure(members: Sequence[Beside], sign: int) -> list[Beside]:
    return [member for member in members if member.is_sure and sign * member.bootstrap.delta > 0]


def _some(named: Sequence[str]) -> str:
    rest = len(named) - MOST_NAMED
    return "; ".join(named) if rest <= 0 else f"{'; '.join(named[:MOST_NAMED])}; and {count(rest)} more"


def _p(p: float) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


def _ways(number: int) -> str:
    return f"{count(number)} way{'' if number == 1 else 's'}"


def _cells(number: int) -> str:
    return f"{count(number)} cell{'' if number == 1 else 's'}"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"
