"""The matched pairs test: by hand, by property, and against NIST's sc_stats; and what a test set is too small for."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from make_sctk_cases import SCTK, read_cases, sctk_verdicts

from paretone.results import Errors, detectable_delta, matched_pairs
from paretone.results.mapsswe import align_as_sclite, cut, judge

CASES = read_cases()
WORDS = st.lists(st.sampled_from("abc"), max_size=7)
TRIPLES = st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=6)


def texts(triples: list[tuple[list[str], ...]]) -> list[list[str]]:
    """References, and what two systems heard."""
    return [[" ".join(words) for words in column] for column in zip(*triples, strict=True)]


# --- by hand ---


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [
        ("a b c", "a x c", [0, 0, 0, 1, 0, 0, 0]),
        ("a b", "b c", [0, 1, 0, 0, 1]),  # a deletion and an insertion cost 6, two substitutions 8
        ("a", "a a", [1, 0, 0]),
        ("c d a", "b", [0, 1, 0, 1, 0, 1, 0]),
        ("", "x y", [2]),
        ("a b", "", [0, 1, 0, 1, 0]),
        ("a b a b a", "a b x", [0, 1, 0, 1, 0, 0, 0, 0, 0, 1, 0]),  # of two places for "a b" the later
    ],
)
def test_alignments_are_those_of_sclite(said: str, heard: str, errors: list[int]) -> None:
    assert align_as_sclite(said.split(), heard.split()) == errors


@pytest.mark.parametrize(
    ("ours", "theirs", "segments"),
    [
        ("one two three four five six", "one two three four five six", []),
        ("one x three four x six", "one two three four five six", [(1, 0), (1, 0)]),  # two good words between: a cut
        ("one x three x five six", "one two three four five six", [(2, 0)]),  # only one: no cut
        ("x two three four five six", "one two three four x six", [(1, 0), (0, 1)]),
        ("one two x three four five six", "one two three y four five six", [(1, 1)]),
        ("x one two three z four five six y", "one two three four five six", [(1, 0), (1, 0), (1, 0)]),
        ("", "one two three x five", [(6, 2)]),
    ],
)
def test_two_good_words_in_a_row_part_segments(ours: str, theirs: str, segments: list[tuple[int, int]]) -> None:
    said = ["one", "two", "three", "four", "five", "six"]
    assert cut(align_as_sclite(said, ours.split()), align_as_sclite(said, theirs.split())) == segments


def test_the_statistic_by_hand() -> None:
    # differences 2, 0, 1, 1: mean 1, variance (1 + 1) / 3, so z = 1 / sqrt(2 / 3 / 4) = sqrt(6)
    verdict = judge([(2, 0), (1, 1), (1, 0), (3, 2)])
    assert verdict.segments == 4
    assert verdict.z == pytest.approx(math.sqrt(6))
    assert verdict.p_value == pytest.approx(0.014306, abs=1e-6)  # from a table of the normal distribution


def test_without_spread_there_is_a_verdict_only_for_equal_systems() -> None:
    assert (judge([]).z, judge([]).p_value) == (0.0, 1.0)
    assert (judge([(1, 1), (2, 2)]).z, judge([(1, 1), (2, 2)]).p_value) == (0.0, 1.0)
    assert (judge([(1, 0), (2, 1)]).z, judge([(1, 0), (2, 1)]).p_value) == (None, None)
    assert (judge([(3, 0)]).segments, judge([(3, 0)]).z, judge([(3, 0)]).p_value) == (1, None, None)


# --- by property ---


def least_cost(said: list[str], heard: list[str]) -> int:
    """The textbook's recurrence at sclite's costs."""
    row = [3 * j for j in range(len(heard) + 1)]
    for i, word in enumerate(said, 1):
        previous, row[0] = row[0], 3 * i
        for j, other in enumerate(heard, 1):
            previous, row[j] = row[j], min(row[j] + 3, row[j - 1] + 3, previous + 4 * (word != other))
    return row[-1]


@given(WORDS, WORDS)
@settings(deadline=None)
def test_alignments_have_the_least_cost(said: list[str], heard: list[str]) -> None:
    errors = align_as_sclite(said, heard)
    inserted, missed = sum(errors[::2]), sum(errors[1::2])
    assert len(errors) == 2 * len(said) + 1
    substituted = len(heard) - inserted - (len(said) - missed)
    assert 3 * inserted + 3 * (missed - substituted) + 4 * substituted == least_cost(said, heard)


@given(TRIPLES)
@settings(deadline=None)
def test_swapping_the_systems_flips_the_sign_and_nothing_else(triples: list[tuple[list[str], ...]]) -> None:
    said, ours, theirs = texts(triples)
    one, other = matched_pairs(said, ours, theirs), matched_pairs(said, theirs, ours)
    assert (one.segments, one.p_value) == (other.segments, other.p_value)
    assert one.z == (None if other.z is None else -other.z)


@given(TRIPLES)
@settings(deadline=None)
def test_equal_systems_do_not_differ(triples: list[tuple[list[str], ...]]) -> None:
    said, ours, _ = texts(triples)
    verdict = matched_pairs(said, ours, ours)
    assert (verdict.z, verdict.p_value) == (0.0, 1.0)


@given(WORDS, WORDS, WORDS)
@settings(deadline=None)
def test_segments_hold_every_error_once(said: list[str], ours: list[str], theirs: list[str]) -> None:
    both = align_as_sclite(said, ours), align_as_sclite(said, theirs)
    segments = cut(*both)
    assert [sum(counts) for counts in zip(*segments, strict=True)] == [sum(e) for e in both] or not segments
    assert all(any(counts) for counts in segments)
    assert bool(segments) == any(map(sum, both))


# --- against NIST ---


def test_there_are_enough_real_pairs() -> None:
    real = [pair for name, case in CASES.items() if name.startswith("digits-") for pair in case["pairs"]]
    assert len(real) >= 20
    assert {pair["differ"] for pair in real} == {True, False}


@pytest.mark.parametrize("name", CASES)
def test_segments_statistics_and_verdicts_are_those_of_sc_stats(name: str) -> None:
    case = CASES[name]
    for pair in case["pairs"]:
        verdict = matched_pairs(case["references"], case["systems"][pair["first"]], case["systems"][pair["second"]])
        assert verdict.segments == pair["segments"], pair
        assert f"{verdict.z or 0:.3f}" == pair["z"], pair
        assert (verdict.p_value is not None and verdict.p_value < 0.05) == pair["differ"], pair


@pytest.mark.skipif(not (SCTK / "sc_stats").exists(), reason="apt-get install sctk")
def test_the_committed_verdicts_are_what_sc_stats_says(tmp_path) -> None:
    for number, case in enumerate(CASES.values()):
        assert list(sctk_verdicts(case, tmp_path / str(number))) == case["pairs"]


# --- what a test set is too small for ---


def test_the_detectable_difference_by_hand() -> None:
    # differences 4, 0, 0, 0, 8, 0 in 10 words each: delta 0.2, residuals 2, -2, -2, -2, 6, -2, squares 56
    ours = [Errors(4, 0, 0, 10), *[Errors(0, 0, 0, 10)] * 3, Errors(8, 0, 0, 10), Errors(0, 0, 0, 10)]
    theirs = [Errors(0, 0, 0, 10)] * 6
    expected = (1.959964 + 0.841621) * math.sqrt(6 / 5 * 56) / 60
    assert detectable_delta(ours, theirs) == pytest.approx(expected, rel=1e-6)
    assert detectable_delta(theirs, ours) == pytest.approx(expected, rel=1e-6)


def test_a_single_utterance_has_no_detectable_difference() -> None:
    assert detectable_delta([Errors(1, 0, 0, 5)], [Errors(0, 0, 0, 5)]) is None


def test_equal_systems_can_not_show_a_change_of_fewer_than_eight_errors() -> None:
    """An exact sign test at 0.05 needs six errors that all fall on one side; the share of test sets that have them."""
    errors = [Errors(1, 0, 0, 10)] * 100
    least = detectable_delta(errors, errors)
    assert least is not None
    assert scipy.stats.binomtest(6, 6).pvalue < 0.05 < scipy.stats.binomtest(5, 5).pvalue
    assert scipy.stats.poisson.sf(5, 1000 * least) == pytest.approx(0.8, abs=0.02)


def test_a_difference_of_that_size_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(0)

    def draw(added: float) -> tuple[list[Errors], list[Errors]]:
        words = rng.integers(5, 15, 300)
        theirs, ours = rng.binomial(words, 0.2), rng.binomial(words, 0.2 + added)
        return [[Errors(int(e), 0, 0, int(w)) for e, w in zip(system, words, strict=True)] for system in (ours, theirs)]

    least = detectable_delta(*draw(0.0))
    assert least is not None
    found = []
    for _ in range(400):
        ours, theirs = draw(least)
        differences = [a.total - b.total for a, b in zip(ours, theirs, strict=True)]
        found.append(scipy.stats.ttest_1samp(differences, 0).pvalue < 0.05)
    assert np.mean(found) == pytest.approx(0.8, abs=0.07)
