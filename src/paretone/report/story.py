"""What the numbers say, in sentences that their intervals support."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from paretone.report.study import Entry, Study
from paretone.report.words import fixed, listed, percent, point_range

TOLERANCES = (0.01, 0.02, 0.05)
SAME_SIZE = 0.02
OF_WHAT = {
    "sparsity": "sparsity",
    "target_params": "of the parameters",
    "target_bytes": "of the bytes",
    "target_macs": "of the MACs",
}
_WITHIN = re.compile(r" of its parameters within \d points of WER")


@dataclass(frozen=True)
class Story:
    """The findings of one study.

    ``reach`` is, per series, the smallest model that stays within each of `TOLERANCES` (None: none does), and empty
    where no model was compressed;
    ``pick`` the model that the headline is about.
    """

    study: Study
    headline: str
    sentences: tuple[str, ...]
    reach: dict[str, tuple[Entry | None, ...]]
    pick: Entry | None


def tell(study: Study) -> Story:
    """Find what a study shows; a cost counts as the upper end of its 95 % interval, never as its middle."""
    judged = {name: _judged(entries) for name, entries in study.series.items()}
    judged = {name: entries for name, entries in judged.items() if entries}
    if judged and not any(entry.plan for entries in judged.values() for entry in entries):
        return _beside(study, judged)
    reach = {name: tuple(smallest_within(entries, t) for t in TOLERANCES) for name, entries in judged.items()}
    if not judged:
        return Story(study, _plain_headline(study), (), {}, None)
    for index in (1, 2):
        reached = {name: found for name, row in reach.items() if (found := row[index])}
        if reached:
            best = min(reached, key=lambda name: reached[name].measures.parameters)
            sentences = (_reach_sentence(reach, index, best), *_comparisons(judged), *_blindness(judged))
            return Story(study, _headline(study, reached, best, index), sentences, reach, reached[best])
    cheapest = min((e for entries in judged.values() for e in entries), key=lambda e: _upper(e))
    headline = f"every compressed {study.name} may cost more than {fixed(100 * TOLERANCES[-1], 0)} points of WER"
    nearest = f"The nearest is {cheapest.label}: {point_range(cheapest.delta_ci)} points."
    return Story(study, headline, (nearest, *_comparisons(judged), *_blindness(judged)), reach, cheapest)


def _beside(study: Study, judged: dict[str, list[Entry]]) -> Story:
    """Of models that were not made from the baseline: how far they are from it."""
    entries = [entry for each in judged.values() for entry in each]
    said = [f"{entry.label} beside {study.name}: {point_range(entry.delta_ci)} points of WER" for entry in entries]
    return Story(study, said[0], (*(f"{each}." for each in said), *_blindness(judged)), {}, entries[0])


def smallest_within(entries: Sequence[Entry], tolerance: float) -> Entry | None:
    """The smallest model that costs at most ``tolerance`` of WER, as every larger one of ``entries`` does too.

    That no lucky point behind a failed one counts keeps the choice from feeding on noise.

    Args:
        entries: one series with intervals, largest model first.
        tolerance: most WER that the upper end of the interval may add, a fraction.
    """
    found = None
    for entry in entries:
        if _upper(entry) > tolerance:
            break
        found = entry
    return found


def joint_headline(stories: Sequence[Story]) -> str:
    """The page's first line: what up to three studies found; words that the first one said are not said again."""
    first, *others = [story.headline for story in stories[:3]]
    start, takes, rest = first.partition(" takes ")
    said = _WITHIN.search(rest)
    if takes and said:
        others = [other.removeprefix(f"{start} takes ").replace(said[0], "") for other in others]
    text = "; ".join([first, *others])
    return text[:1].upper() + text[1:]


def _judged(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.delta_ci is not None]


def _upper(entry: Entry) -> float:
    assert entry.delta_ci is not None
    return entry.delta_ci[1]


def _share(entry: Entry) -> str:
    return percent(entry.share, 0)


def _plain_headline(study: Study) -> str:
    original = study.original
    measured = len(study.entries) - (original is not None)
    if measured == 0 and original is not None:
        return f"{study.name} has a WER of {percent(original.measures.wer)}"
    models = "one model" if measured == 1 else f"{measured} models"
    return f"{models} from {study.name}, measured without a baseline"


def _headline(study: Study, reached: dict[str, Entry], best: str, index: int) -> str:
    """``cluster takes X to 71 % of its parameters within 2 points of WER, magnitude to 86 %``."""
    within = f"within {fixed(100 * TOLERANCES[index], 0)} points of WER"
    others = sorted((entry.measures.parameters, name) for name, entry in reached.items() if name != best)
    next_best = f", {_short(study, others[0][1])} to {_share(reached[others[0][1]])}" if others else ""
    share = _share(reached[best])
    return f"{_short(study, best)} takes {study.name} to {share} of its parameters {within}{next_best}"


def _short(study: Study, series: str) -> str:
    """The method alone, where only one judged series of the study has it."""
    methods = {name: entries[0].method for name, entries in study.series.items() if _judged(entries)}
    return methods[series] if list(methods.values()).count(methods[series]) == 1 else series


def _reach_sentence(reach: dict[str, tuple[Entry | None, ...]], index: int, best: str) -> str:
    """``cluster stays within 2 points … down to 71 %; magnitude down to 86 %; random at no size measured.``"""
    entry = reach[best][index]
    assert entry is not None
    within = f"within {fixed(100 * TOLERANCES[index], 0)} points of the baseline's WER"
    parts = [f"{best} stays {within} down to {_share(entry)} of the parameters ({point_range(entry.delta_ci)} there)"]
    others = sorted((name for name in reach if name != best), key=lambda name: _size(reach[name][index]))
    for name in others:
        other = reach[name][index]
        parts.append(f"{name} down to {_share(other)}" if other else f"{name} at no size measured")
    return "; ".join(parts) + "."


def _size(entry: Entry | None) -> float:
    return float("inf") if entry is None else entry.measures.parameters


def _blindness(judged: dict[str, list[Entry]]) -> list[str]:
    """What the test set is too small for: below the smallest of these no comparison here could have shown a change."""
    results = [entry.result for entries in judged.values() for entry in entries if entry.result]
    least = sorted(r.detectable_delta_wer for r in results if r.detectable_delta_wer is not None)
    if not least:
        return []
    low, high = fixed(100 * least[0]), fixed(100 * least[-1])
    most = f", and none below {high} where a model differs most from its baseline" if high != low else ""
    return [f"With this test set no change below {low} points of WER can be seen reliably{most}."]


def _comparisons(judged: dict[str, list[Entry]]) -> list[str]:
    """One sentence per pair of series that were asked for equal sizes and measured against one baseline."""
    sentences = []
    for first, second in combinations(judged, 2):
        pairs = [(a, b) for a in judged[first] for b in judged[second] if _comparable(a, b)]
        if pairs and (sentence := _comparison(first, second, pairs)):
            sentences.append(sentence)
    return sentences


def _comparable(a: Entry, b: Entry) -> bool:
    if not (a.result and a.result.baseline and b.result and b.result.baseline):
        return False
    return a.asked == b.asked and a.result.baseline.model.digest == b.result.baseline.model.digest


def _larger(a: Entry, b: Entry) -> bool:
    return a.measures.parameters > (1 + SAME_SIZE) * b.measures.parameters


def _wins(a: Entry, b: Entry) -> bool:
    """Whether ``a`` certainly makes fewer errors and does not owe it to its size."""
    return _upper(a) < _lower(b) and not _larger(a, b)


def _comparison(first: str, second: str, pairs: list[tuple[Entry, Entry]]) -> str | None:
    """None where the two are nowhere of one size and neither wins though it is smaller."""
    first_wins, second_wins, unclear = [], [], []
    of_what = {_asked(a)[1] for a, _ in pairs}
    for a, b in pairs:
        where = _asked(a)[0] if len(of_what) == 1 else " ".join(_asked(a))
        if _wins(a, b):
            first_wins.append(where)
        elif _wins(b, a):
            second_wins.append(where)
        elif not (_larger(a, b) or _larger(b, a)):
            unclear.append(where)
    parts = []
    if first_wins:
        parts.append(f"{first} makes fewer errors than {second} at {listed(first_wins)}")
    if second_wins:
        parts.append(f"{second} makes fewer errors than {first} at {listed(second_wins)}")
    if not parts and not unclear:
        return None
    if not parts:
        return f"The intervals of {first} and {second} overlap wherever both were measured at one size."
    if unclear:
        parts.append(f"at {listed(unclear)} their intervals overlap")
    ending = f" {of_what.pop()}" if len(of_what) == 1 else ""
    return f"{parts[0]}{ending}{''.join(f'; {part}' for part in parts[1:])}."


def _asked(entry: Entry) -> tuple[str, str]:
    """How small a model was to be, and of what: (``70 %``, ``of the bytes``); its real share where nothing was said."""
    budgets = [budget for step in (entry.plan.steps if entry.plan else []) if (budget := step.budget)]
    if not budgets:
        return _share(entry), "of the parameters"
    if len(budgets) > 1:
        return entry.asked, "in steps"
    name, share = budgets[0]
    return percent(share, 0), OF_WHAT[name]


def _lower(entry: Entry) -> float:
    assert entry.delta_ci is not None
    return entry.delta_ci[0]
