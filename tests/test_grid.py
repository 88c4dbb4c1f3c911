"""Grids of cells: statistics of many comparisons, pooled ways, figures and the page, from Results alone."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from paretone.errors import UserError
from paretone.report.grid import Grid, GridCell, write_grid_report
from paretone.report.grid.analysis import analyse
from paretone.report.grid.comparisons import compare_ways
from paretone.report.grid.drawing_effects import bars_of
from paretone.report.grid.drawing_wer import axis_figure, plain_of
from paretone.report.grid.front import front_of, sizes_of
from paretone.report.grid.markdown import as_markdown
from paretone.report.grid.page import render_grid
from paretone.report.grid.pooling import ways_of
from paretone.report.grid.story import headline_of, warnings_of
from paretone.results import Transcript, compare, write_result, write_transcripts
from paretone.results.family import fit_interaction, holm, mean_interval, t_quantile, t_tail
from paretone.results.schema import RESULT_FILE, TRANSCRIPTS_FILE, Result
from paretone.results.significance import joint_rates

# --- statistics -------------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    # sorted 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1 -> 0.02, 0.03, 0.06 and, not below it, 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_leaves_none_out_of_the_family_and_stays_at_most_one() -> None:
    assert holm([None, 0.02, None, 0.9]) == [None, 0.04, None, 0.9]
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p_values: list[float]) -> None:
    adjusted = [q for q in holm(p_values) if q is not None]
    assert all(p <= q <= min(1, len(p_values) * p) + 1e-12 for p, q in zip(p_values, adjusted, strict=True))
    assert np.all(np.diff(np.array(adjusted)[np.argsort(p_values)]) >= 0)


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 24, 194, 5000])
def test_quantiles_and_tails_of_t_equal_scipys(freedom: int) -> None:
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)
    assert t_quantile(freedom, 0.99) == pytest.approx(stats.t.ppf(0.995, freedom), rel=1e-9)
    for t in (-3.2, 0.0, 0.1, 1.0, 2.5, 9.0):
        assert t_tail(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-8, abs=1e-300)


def test_the_interval_of_a_mean_by_hand() -> None:
    # 1, 2, 3: standard error 1 / sqrt(3), t of two degrees 4.302653
    low, high = mean_interval([1, 2, 3]) or (0, 0)
    assert (low, high) == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), rel=1e-6)
    assert mean_interval([1.0]) is None


def crossed(repeats: int) -> list[dict[str, str]]:
    return [
        {"layers": layers, "lora": lora, "data": data}
        for layers, lora, data, _ in product(("8", "6", "4"), ("no", "yes"), ("da", "nl", "en"), range(repeats))
    ]


LEVELS = {"layers": ("8", "6", "4"), "lora": ("no", "yes"), "data": ("da", "nl", "en")}


def test_a_linear_model_finds_the_effects_that_made_the_values() -> None:
    rows = crossed(2)
    values = [
        0.2 + 0.01 * (8 - int(r["layers"])) - 0.03 * (r["lora"] == "yes") + 0.05 * (r["data"] == "nl")
        - 0.004 * (8 - int(r["layers"])) * (r["lora"] == "yes")
        for r in rows
    ]  # fmt: skip
    fit = fit_interaction(rows, values, levels=LEVELS, reference={}, steps={"layers": -1.0})
    found = {tuple(c.terms.items()): c.estimate for c in fit.coefficients}
    expected = {
        (): 0.2, (("layers", "per −1"),): 0.01, (("lora", "yes"),): -0.03, (("data", "nl"),): 0.05,
        (("layers", "per −1"), ("lora", "yes")): -0.004,
    }  # fmt: skip
    assert found == pytest.approx({key: expected.get(key, 0.0) for key in found}, abs=1e-12)
    assert set(expected) <= set(found)
    assert len(found) == 12
    assert fit.freedom == 24
    assert fit.explained == pytest.approx(1)


def test_a_line_has_the_slope_interval_and_p_of_scipy() -> None:
    x, y = ["0", "1", "2", "3", "4", "5"], [0.1, 0.4, 0.35, 0.8, 0.9, 1.3]
    fit = fit_interaction([{"x": each} for each in x], y, levels={"x": x}, reference={}, steps={"x": 1.0})
    line = stats.linregress([float(each) for each in x], y)
    slope = fit.coefficients[1]
    half = stats.t.ppf(0.975, 4) * line.stderr
    assert slope.estimate == pytest.approx(line.slope)
    assert slope.ci95 == pytest.approx((line.slope - half, line.slope + half))
    assert slope.p_value == pytest.approx(line.pvalue)
    assert fit.explained == pytest.approx(line.rvalue**2)


def test_two_groups_have_the_p_of_students_test() -> None:
    ours, theirs = [0.31, 0.29, 0.36, 0.33], [0.25, 0.28, 0.27, 0.22]
    rows = [{"lora": "no"}] * 4 + [{"lora": "yes"}] * 4
    fit = fit_interaction(rows, ours + theirs, levels={"lora": ("no", "yes")}, reference={"lora": "no"})
    assert fit.coefficients[1].p_value == pytest.approx(stats.ttest_ind(ours, theirs).pvalue)
    assert fit.coefficients[1].p_holm == fit.coefficients[1].p_value


def test_terms_that_cells_cannot_tell_apart_are_dropped_whole_and_named() -> None:
    rows = [r for r in crossed(3) if (r["lora"] == "yes") == (r["data"] == "nl")]  # LoRA in Dutch alone
    values = [float(place % 5) for place in range(len(rows))]
    fit = fit_interaction(rows, values, levels=LEVELS, reference={}, steps={"layers": -1.0})
    assert ("data",) in fit.dropped or not any(dict(c.terms).get("data") == "nl" for c in fit.coefficients)
    assert ("layers", "lora", "data") in fit.dropped
    assert all(np.isfinite(c.ci95).all() for c in fit.coefficients)


def test_one_cell_each_leaves_no_room_for_triples() -> None:
    rows = crossed(1)
    fit = fit_interaction(rows, [float(i % 7) for i in range(18)], levels=LEVELS, reference={}, steps={"layers": 1.0})
    assert fit.dropped == [("layers", "lora", "data")]
    with pytest.raises(UserError, match="no model"):
        fit_interaction(rows[:1], [0.1], levels=LEVELS, reference={})


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), min_size=2, max_size=30))
def test_joint_draws_of_equal_systems_are_equal(utterances: list[tuple[int, int]]) -> None:
    edits, words = (np.array(column) for column in zip(*utterances, strict=True))
    rates = joint_rates(np.stack([edits, edits, 0 * edits]), words, seed=3, draws=50)
    assert np.array_equal(rates[0], rates[1])
    assert not rates[2].any()


# --- a small grid on disk ---------------------------------------------------------------------------------------------

SAID = ("one two three four", "five six", "seven eight nine", "zero one")


def heard_with(wrong: int) -> list[str]:
    """The utterances with this many words, from the first one on, substituted."""
    heard = []
    for text in SAID:
        words = text.split()
        swap = min(wrong, len(words))
        wrong -= swap
        heard.append(" ".join(["x"] * swap + words[swap:]))
    return heard


def cell(folder: Path, labels: Mapping[str, str], heard: Sequence[str], **more: Any) -> GridCell:
    """A cell on disk; ``copies`` of ``said``, in ``language``."""
    copies, language, texts = more.pop("copies", 1), more.pop("language", "en"), more.pop("said", SAID)
    transcripts = [
        Transcript(id=f"{copy}-{i}", audio=f"{i}.flac", text=text, hypothesis=said, language=language,
                   normaliser="basic/1")
        for copy in range(copies)
        for i, (text, said) in enumerate(zip(texts, heard, strict=True))
    ]  # fmt: skip
    scores = compare(transcripts)
    model = {"name": "m", "path": "m", "digest": "sha256:0", "family": "whisper", "architecture": "W"}
    machine = {
        "cpu": "x",
        "cores": 1,
        "threads": 1,
        "memory_bytes": 1,
        "python": "3",
        "torch": "2",
        "transformers": "5",
    }
    data = {"name": "d", "path": "d", "digest": "sha256:d", "utterances": len(transcripts), "audio_s": 8.0}
    costs = {"parameters": 1000, "size_bytes": 1, "macs": 1, "rtfx": 10.0, "audio_s": 8.0, "seconds": 0.8,
             "peak_rss_bytes": 1} | more  # fmt: skip
    told = {
        **scores.model_dump(exclude={"baseline"}), **costs, "model": model, "decoding": {}, "version": "0",
        "command": ["x"],
        "seed": 0, "created": "now", "machine": machine, "data": data,
    }  # fmt: skip
    folder.mkdir(parents=True)
    write_result(Result.model_validate(told), folder / RESULT_FILE)
    write_transcripts(transcripts, folder / TRANSCRIPTS_FILE)
    return GridCell(folder.name, labels, folder)


AXES = {"data": ("da", "nl"), "layers": ("8", "6"), "lora": ("no", "yes"), "seed": ("0", "1")}


def small_grid(root: Path, **more: Any) -> Grid:
    """2 x 2 x 2 ways of two seeds; fewer layers are worse, LoRA is better."""
    cells = []
    for data, layers, lora, seed in product(*AXES.values()):
        wrong = (8 - int(layers)) + (lora == "no") + int(seed)
        parts = {"encoder": 100 * int(layers), "projector": 50, "language_model": 500}
        labels = {"data": data, "layers": layers, "lora": lora, "seed": seed}
        size = {"parameters": sum(parts.values()), "parts": parts}
        language = more.get("language", data)
        place = root / f"{data}{layers}{lora}{seed}"
        cells.append(cell(place, labels, heard_with(wrong), copies=3, language=language, **size))
    settings = {key: value for key, value in more.items() if key != "language"}
    start: dict[str, Any] = {
        "name": "small", "about": "Why?", "axes": AXES, "reference": {"layers": "8", "lora": "no"}, "cells": cells,
        "command": "paretone study report small.yaml",
    }  # fmt: skip
    return Grid(**(start | settings))


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    return small_grid(tmp_path_factory.mktemp("cells"))


def test_a_way_is_the_mean_of_its_seeds(grid: Grid) -> None:
    ways = ways_of(grid)
    assert len(ways) == 8
    first = ways[0]
    assert first.name == "da · layers 8 · lora no"
    assert list(first.cells) == ["0", "1"]
    assert first.wer == pytest.approx((1 + 2) / 2 / 11)  # of eleven words; the copies change no rate
    assert (first.errors.substitutions, first.errors.words) == (9, 66)
    low, high = first.seeds_ci95 or (0, 0)
    half = 12.7062 * (1 / 11) / 2  # t of one degree; the standard error of 1 and 2 is 1/2
    assert (low, high) == pytest.approx((1.5 / 11 - half, 1.5 / 11 + half), rel=1e-4)
    assert first.parameters == {"encoder": 800, "encoder + projector": 850, "whole": 1350}
    assert first.latency_s == pytest.approx(0.1)
    assert set(first.by_language) == {"da"}


def test_a_comparison_by_hand(grid: Grid) -> None:
    family = compare_ways(grid, ways_of(grid))
    assert len(family.members) == 6
    assert not family.alone
    found = {member.way.name: member for member in family.members}
    worse = found["da · layers 6 · lora no"]
    assert worse.reference.name == "da · layers 8 · lora no"
    assert worse.seeds == ["0", "1"]
    assert worse.bootstrap.delta == pytest.approx(2 / 11)
    assert worse.by_seed == pytest.approx([2 / 11, 2 / 11])
    assert worse.seeds_agree
    assert worse.shifts == {"da": pytest.approx({"substitutions": 2 / 11, "deletions": 0.0, "insertions": 0.0})}
    # seed 0: one and three errors in the first utterance; seed 1: two and four. 3 copies each, all of one segment
    assert worse.matched.segments == 6
    assert worse.matched.p_value is None  # two more in each: no spread
    assert worse.p_value == worse.bootstrap.p_value
    assert {change.word: (change.baseline_errors, change.errors) for change in worse.words}["three"] == (0, 6)


def test_sets_whose_utterances_have_the_same_ids_do_not_share_words(tmp_path: Path) -> None:
    said = {"short": SAID, "long": [f"{text} and so on" for text in SAID]}
    cells = [
        cell(
            tmp_path / f"{data}{lora}",
            {"data": data, "lora": lora},
            [f"{heard} and so on" if data == "long" else heard for heard in heard_with(1 + (lora == "yes"))],
            copies=8,
            said=said[data],
        )
        for data, lora in product(said, ("no", "yes"))
    ]
    both = Grid("g", "", {"data": ("short", "long"), "lora": ("no", "yes")}, {"lora": "no"}, cells)
    ways = {way.name: way for way in ways_of(both)}
    for member in compare_ways(both, list(ways.values())).members:
        assert member.bootstrap.delta == pytest.approx(member.way.wer - member.reference.wer)
    alone = Grid("g", "", {"lora": ("no", "yes")}, {"lora": "no"}, [c for c in cells if c.labels["data"] == "long"])
    assert [way.ci95 for way in ways_of(alone)] == [ways[f"long · lora {lora}"].ci95 for lora in ("no", "yes")]


def test_pairs_cancel_where_nothing_differs(tmp_path: Path) -> None:
    cells = [
        cell(tmp_path / f"{lora}{seed}", {"lora": lora, "seed": seed}, heard_with(int(seed) + 1))
        for lora, seed in product(("no", "yes"), "012")
    ]
    same = Grid("g", "", {"lora": ("no", "yes"), "seed": tuple("012")}, {"lora": "no"}, cells)
    (member,) = compare_ways(same, ways_of(same)).members
    assert (member.bootstrap.delta, member.bootstrap.ci95, member.p_holm) == (0, (0, 0), 1)
    assert headline_of(analyse(same)) == "Beside lora no: no significant difference in 1 way"


def test_one_of_both_tests_is_not_enough(grid: Grid) -> None:
    for member in analyse(grid).family.members:
        assert member.p_holm >= member.p_value >= max(member.bootstrap.p_value, member.matched.p_value or 0)


def test_seeds_that_one_side_lacks_are_left_out_but_one_reference_serves_all(tmp_path: Path) -> None:
    def of(lora: str, seed: str, wrong: int) -> GridCell:
        return cell(tmp_path / f"{lora}{seed}{wrong}", {"lora": lora, "seed": seed}, heard_with(wrong))

    axes = {"lora": ("no", "yes"), "seed": ("0", "1", "2")}
    three = [of("yes", seed, 2) for seed in "012"]
    two = [of("no", "0", 1), of("no", "2", 3)]
    both = Grid("g", "", axes, {"lora": "no"}, [*two, *three])
    (member,) = compare_ways(both, ways_of(both)).members
    assert member.seeds == ["0", "2"]
    assert member.by_seed == pytest.approx([1 / 11, -1 / 11])
    assert not member.seeds_agree
    assert "between 2 and 3 seeds" in " ".join(warnings_of(analyse(both)))
    single = Grid("g", "", axes, {"lora": "no"}, [two[0], *three])
    (member,) = compare_ways(single, ways_of(single)).members
    assert member.seeds == ["0", "1", "2"]


def test_a_missing_reference_is_said_and_not_compared(grid: Grid) -> None:
    kept = [c for c in grid.cells if c.labels["data"] != "nl" or c.labels["layers"] != "8" or c.labels["lora"] != "no"]
    found = analyse(Grid(grid.name, "", grid.axes, grid.reference, kept))
    assert [way.labels["data"] for way in found.family.alone] == ["nl"] * 3
    assert len(found.family.members) == 3
    assert "3 ways with no measured reference" in " ".join(warnings_of(found))


def test_cells_that_heard_other_utterances_are_not_compared(tmp_path: Path) -> None:
    cells = [
        cell(tmp_path / "a", {"lora": "no"}, heard_with(1)),
        cell(tmp_path / "b", {"lora": "yes"}, heard_with(1), copies=2),
    ]
    with pytest.raises(UserError, match="lora yes beside lora no: utterance '1-0' is in one of them only"):
        analyse(Grid("g", "", {"lora": ("no", "yes")}, {"lora": "no"}, cells))


def test_no_cell_and_equal_labels_are_refused(grid: Grid) -> None:
    with pytest.raises(UserError, match="no cell is measured"):
        analyse(Grid("g", "", {}, {}, []))
    with pytest.raises(UserError, match="labels of its own"):
        analyse(Grid("g", "", grid.axes, {}, [grid.cells[0], grid.cells[0]]))


# --- fronts -----------------------------------------------------------------------------------------------------------


def test_a_front_by_hand() -> None:
    assert front_of([(1, 9), (2, 5), (2, 6), (3, 5), (4, 1), (4, 1)]) == [0, 1, 4, 5]
    assert front_of([]) == []


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20))
def test_nothing_beats_the_front_and_something_beats_all_others(points: list[tuple[int, int]]) -> None:
    def beaten(p: tuple[int, int]) -> bool:
        return any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points)

    assert set(front_of(points)) == {place for place, p in enumerate(points) if not beaten(p)}


def test_a_model_without_parts_has_one_denominator(tmp_path: Path) -> None:
    whole = cell(tmp_path / "a", {}, heard_with(1))
    assert sizes_of(whole.result) == {"whole": 1000}


# --- page -------------------------------------------------------------------------------------------------------------


def text_of(markup: str) -> str:
    return re.sub(r"<[^>]+>", "", markup).replace("\N{NO-BREAK SPACE}", " ")


def test_the_page_and_its_files_are_the_same_twice_and_load_nothing(grid: Grid, tmp_path: Path) -> None:
    told = [write_grid_report(grid, tmp_path / name / "report.html") for name in ("a", "b")]
    assert [file.read_bytes() for file in told[0]] == [file.read_bytes() for file in told[1]]
    names = {file.name for file in told[0]}
    assert {"report.html", "wer-layers.svg", "parameters-encoder.png", "latency.svg", "shifts.svg"} <= names
    assert {"parameters-encoder-projector.svg", "parameters-whole.svg", "interaction.png", "words.svg"} <= names
    markup = told[0][0].read_text()
    assert not re.search(r"https?://|<script|<link|<img|src=|@import", markup)
    assert markup.count("<code>paretone study report small.yaml</code>") == len(
        [name for name in names if name.endswith(".svg")]
    )
    assert "var(--ink)" in markup
    pictured = set(re.findall(r"\]\(([^)]+\.svg)\)", told[0][-1].read_text()))
    assert pictured == {name for name in names if name.endswith(".svg")}
    links = set(re.findall(r'href="(report_files/[^"]+)"', markup))
    assert links == {f"report_files/{name}" for name in names - {"report.html", "README.md"}}


def test_failed_and_waiting_cells_are_said(grid: Grid) -> None:
    failed = [({"data": "da", "layers": "6", "lora": "no", "seed": "2"}, "memory <ran> out")]
    more = Grid(grid.name, "", grid.axes, grid.reference, grid.cells, failed=failed, waiting=3)
    markup = render_grid(analyse(more), [], "files")
    assert "memory &lt;ran&gt; out" in markup
    text = text_of(markup)
    assert "comparisons are too many" not in text
    assert "1 cell failed and is in no number on this page" in text
    assert "3 cells are not measured yet: everything here is preliminary" in text
    assert "da · layers 6 · lora no · seed 2" in text


def test_a_family_in_which_nothing_can_be_significant_is_said(grid: Grid) -> None:
    analysis = analyse(grid)
    assert not analysis.family.is_too_large
    few = replace(analysis.family, draws=len(analysis.family.members))
    assert "none can be significant after Holm" in " ".join(warnings_of(replace(analysis, family=few)))


def test_a_grid_without_languages_seeds_numbers_or_reference_renders(tmp_path: Path) -> None:
    cells = [cell(tmp_path / "a", {"way": "a"}, heard_with(1), language=None),
             cell(tmp_path / "b", {"way": "b|c"}, heard_with(2), language=None)]  # fmt: skip
    plain = Grid("g", "", {"way": ("a", "b|c")}, {}, cells)
    page, *files = write_grid_report(plain, tmp_path / "r.html")
    assert "nothing compared" in text_of(page.read_text())
    assert {file.stem for file in files} == {"parameters-whole", "latency", "README"}
    assert "significantly" not in text_of(page.read_text())
    assert "| b\\|c |" in files[-1].read_text()
    assert not analyse(plain).family.members


def test_unknown_languages_are_one_group(tmp_path: Path) -> None:
    found = analyse(small_grid(tmp_path, language=None))
    assert {name for way in found.ways for name in way.by_language} == {""}
    assert next(name for name, _ in bars_of(found, found.panels[0])) == "layers 8 · lora"


def test_plain_models_are_found_by_the_label_of_their_data(grid: Grid) -> None:
    plain = {"mini da": grid.cells[0].folder, "mini nl": grid.cells[-1].folder}
    found = analyse(Grid(grid.name, "", grid.axes, grid.reference, grid.cells, plain=plain))
    assert [plain_of(found, panel)["mini"].wer for panel in found.panels] == [
        pytest.approx(1 / 11),
        pytest.approx(3 / 11),
    ]
    (legend,) = axis_figure(found, "layers").legends
    assert [text.get_text() for text in legend.get_texts()] == ["lora no", "lora yes", "mini"]


def test_tables_have_a_row_for_each_way_and_each_comparison(grid: Grid) -> None:
    text = as_markdown(analyse(grid), [])
    rows = [line for line in text.split("\n") if line.startswith("|")]
    assert len(rows) == 2 + 8 + 2 + 6
    assert "| da | 8 | no | 2 | 13.6 |" in text
    assert "over 6 comparisons" in text


def test_a_page_that_cannot_be_written_says_so(grid: Grid, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        write_grid_report(grid, tmp_path)
