"""Counting, normalising, judging and storing what was heard."""

import json
import math
import subprocess
import sys

import jiwer
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from paretone.errors import UserError
from paretone.results import (
    Errors,
    Transcript,
    choose,
    compare,
    count_characters,
    count_words,
    normaliser,
    paired_bootstrap,
    read_transcripts,
    score,
    wer_interval,
    write_transcripts,
)
from paretone.results.counts import Edit, align
from paretone.results.normalise import resolve
from paretone.results.words import changed_words

SENTENCES = st.lists(st.lists(st.sampled_from("abcd"), max_size=6).map(" ".join), min_size=1, max_size=6)


def transcript(name: str, text: str, hypothesis: str, **fields) -> Transcript:
    return Transcript(id=name, audio=f"{name}.flac", text=text, hypothesis=hypothesis, **fields)


def fewest_edits(said: list[str], heard: list[str]) -> int:
    """Levenshtein's recurrence, as in any textbook."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
    return row[-1]


# --- counts ---


def test_each_kind_of_error_is_counted_once():
    assert count_words("the cat sat on the mat", "the bat sat the mat today") == Errors(1, 1, 1, 6)


def test_an_empty_reference_counts_what_was_heard_as_insertions():
    assert count_words("", "two words") == Errors(0, 0, 2, 0)
    assert count_words("", "two words").rate is None
    assert count_words("two words", "") == Errors(0, 2, 0, 2)


def test_corpus_rate_weighs_by_words_not_by_utterances():
    assert (count_words("a", "b") + count_words("a b c d e f g h i", "a b c d e f g h i")).rate == 0.1


def test_characters_include_the_space_between_words():
    assert count_characters(["ab c"], ["ab"]) == Errors(0, 2, 0, 4)
    assert count_characters(["ab", "", "é"], ["b", "x", "e"]) == Errors(1, 1, 1, 3)


@given(SENTENCES, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_counts_are_minimal_and_consistent(references, random):
    hypotheses = [" ".join(random.choices("abcd", k=random.randrange(7))) for _ in references]
    counts = [count_words(*pair) for pair in zip(references, hypotheses, strict=True)]
    for count, said, heard in zip(counts, references, hypotheses, strict=True):
        assert count.total == fewest_edits(said.split(), heard.split())
        assert count.words == len(said.split())
        assert count.words - count.deletions + count.insertions == len(heard.split())
    total = sum(counts, Errors())
    if total.words:
        assert total.rate == pytest.approx(jiwer.wer(references, hypotheses))


def test_alignment_pairs_words():
    assert align(["a b c"], ["a x c d"]) == [[Edit("a", "a"), Edit("b", "x"), Edit("c", "c"), Edit("", "d")]]


# --- normalisers ---


@pytest.mark.parametrize(
    ("name", "text", "normal"),
    [
        ("whisper-english", "The colour of Mr. Smith's café!", "the color of mister smith is cafe"),
        ("whisper-english", "[laughter] um, I'm twenty-one", "i am 21"),
        ("whisper-english", "three seven zero", "370"),
        ("digits", "three seven zero", "three seven zero"),
        ("digits", "3 7 0", "three seven zero"),
        ("digits", "370", "three seven zero"),
        ("digits", "Nine, oh; one!", "nine zero one"),
        ("digits", "one", "one"),
        ("basic", "Blåbær, FLØDE – Ærø! Één café (støj) <unk>", "blåbær fløde ærø één café"),
        ("basic", "A\u030a", "å"),
        ("basic", "three seven zero", "three seven zero"),
        ("slam", "Blåbær, FLØDE – Ærø! Één café (støj)", "blåbær fløde ærø één café støj"),
        ("slam", "A\u030a", "å"),
        ("slam", "Don't say 'tis'; don’t!", "don't say tis don't"),
        ("slam", "rock 'n' roll, the dogs' o''clock", "rock n roll the dogs o clock"),
        ("slam", "'s avonds: auto's", "s avonds auto's"),
        ("slam", "In 1984, 3,5 %", "in 1984 3 5"),
    ],
)
def test_normalisers(name, text, normal):
    assert normaliser(name)(text) == normal


DIGIT_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@given(st.lists(st.sampled_from(DIGIT_WORDS), min_size=1, max_size=6))
@settings(deadline=None)
def test_digit_strings_keep_every_word(words):
    assert normaliser("digits")(" ".join(words)).split() == words


@given(st.text(max_size=30), st.sampled_from(["whisper-english", "digits", "basic", "slam"]))
@settings(max_examples=60, deadline=None)
def test_normalised_text_has_single_spaces_only(text, name):
    normal = normaliser(name)(text)
    assert normal == " ".join(normal.split())


def test_automatic_choice_follows_the_language():
    texts = ["good morning", "godmorgen", "goedemorgen", "hello"]
    assert choose("auto", texts, ["en", "da", None, "en-GB"]) == [
        "whisper-english/1",
        "basic/1",
        "basic/1",
        "whisper-english/1",
    ]


def test_automatic_choice_counts_the_words_of_digit_strings():
    assert choose("auto", ["three seven zero", "one"], ["en", None]) == ["digits/1", "digits/1"]
    assert choose("auto", ["THREE SEVEN", "tre syv"], ["en", "da"]) == ["digits/1", "basic/1"]
    assert choose("auto", ["i have three dogs"], ["en"]) == ["whisper-english/1"]
    assert choose("whisper-english", ["three seven"], [None]) == ["whisper-english/1"]


def test_an_unknown_normaliser_is_refused():
    with pytest.raises(UserError, match=r"'whisper'; there are auto, whisper-english, digits, basic"):
        resolve("whisper")
    with pytest.raises(UserError, match=r"did you mean 'basic'\?"):
        resolve("basic/2")


# --- significance ---


def test_equal_systems_do_not_differ():
    errors = [Errors(1, 0, 0, 5), Errors(0, 0, 0, 4), Errors(0, 2, 0, 6)]
    verdict = paired_bootstrap(errors, errors, seed=0)
    assert (verdict.delta, verdict.ci95, verdict.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_a_system_that_is_worse_everywhere_differs_as_surely_as_draws_can_tell():
    verdict = paired_bootstrap([Errors(1, 0, 0, 5)] * 20, [Errors(0, 0, 0, 5)] * 20, seed=0, draws=999)
    assert verdict.delta == pytest.approx(0.2)
    assert verdict.ci95 == pytest.approx((0.2, 0.2))
    assert verdict.p_value == pytest.approx(2 / 1000)


def random_errors(seed: int, utterances: int, rate: float) -> list[Errors]:
    rng = np.random.default_rng(seed)
    words = np.random.default_rng(99).integers(1, 20, utterances)
    return [Errors(int(rng.binomial(count, rate)), 0, 0, int(count)) for count in words]


def test_swapping_the_systems_mirrors_the_verdict():
    ours, theirs = random_errors(1, 80, 0.2), random_errors(2, 80, 0.15)
    one, other = paired_bootstrap(ours, theirs, seed=5), paired_bootstrap(theirs, ours, seed=5)
    assert one.delta == pytest.approx(-other.delta)
    assert one.ci95 == pytest.approx((-other.ci95[1], -other.ci95[0]))
    assert one.p_value == pytest.approx(other.p_value)


def test_intervals_agree_with_scipy():
    ours, theirs = random_errors(3, 150, 0.3), random_errors(4, 150, 0.25)
    a, b, words = (
        np.array([getattr(e, key) for e in errors])
        for errors, key in ((ours, "total"), (theirs, "total"), (ours, "words"))
    )
    options = {"paired": True, "vectorized": True, "method": "percentile", "n_resamples": 10_000}
    rate = scipy.stats.bootstrap(
        (a, words), lambda e, w, axis: e.sum(axis) / w.sum(axis), rng=np.random.default_rng(8), **options
    ).confidence_interval
    delta = scipy.stats.bootstrap(
        (a, b, words), lambda e, f, w, axis: (e - f).sum(axis) / w.sum(axis), rng=np.random.default_rng(9), **options
    ).confidence_interval
    assert wer_interval(ours, seed=1) == pytest.approx(tuple(rate), abs=0.003)
    assert paired_bootstrap(ours, theirs, seed=1).ci95 == pytest.approx(tuple(delta), abs=0.003)


@pytest.mark.parametrize("rate", [0.18, 0.21, 0.24])
def test_p_values_agree_with_scipy_and_with_the_normal_distribution(rate):
    ours, theirs = random_errors(11, 200, rate), random_errors(12, 200, 0.2)
    edits = np.array([a.total - b.total for a, b in zip(ours, theirs, strict=True)])
    words = np.array([e.words for e in ours])
    found = scipy.stats.bootstrap(
        (edits, words),
        lambda e, w, axis: e.sum(axis) / w.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(13),
    )
    deltas = found.bootstrap_distribution
    p_value = paired_bootstrap(ours, theirs, seed=1).p_value
    assert p_value == pytest.approx(2 * min(np.mean(deltas <= 0), np.mean(deltas >= 0)), abs=0.02)
    delta = edits.sum() / words.sum()
    standard_error = np.sqrt(len(words)) * np.std(edits - delta * words, ddof=1) / words.sum()
    assert p_value == pytest.approx(2 * scipy.stats.norm.sf(abs(delta) / standard_error), abs=0.03)


def test_equal_seeds_give_equal_intervals_and_others_do_not():
    errors = random_errors(6, 50, 0.3)
    assert wer_interval(errors, seed=1) == wer_interval(errors, seed=1) != wer_interval(errors, seed=2)


def test_draws_without_a_reference_word_are_left_out():
    low, high = wer_interval([Errors(0, 0, 1, 0), Errors(1, 0, 0, 2)], seed=0)
    assert (low, high) == pytest.approx((0.5, 1.0), abs=0.5)
    assert math.isfinite(low)
    assert math.isfinite(high)


# --- words ---


def test_most_changed_words_come_first_with_what_was_heard():
    references = ["five nine", "five nine", "nine one"]
    before = align(references, ["five nine", "five nine", "nine two"])
    after = align(references, ["nine nine", "five", "five one"])
    found = [(c.word, c.count, c.baseline_errors, c.errors, c.heard_as) for c in changed_words(after, before)]
    assert found == [
        ("nine", 3, 0, 2, {"": 1, "five": 1}),
        ("five", 2, 0, 1, {"nine": 1}),
        ("one", 1, 1, 0, {}),
    ]


def test_without_a_baseline_words_with_most_errors_come_first():
    found = changed_words(align(["a b b"], ["a x y"]), None)
    assert [(c.word, c.errors, c.baseline_errors) for c in found] == [("b", 2, None)]


# --- transcripts and scores ---


def test_scores_by_hand(tmp_path):
    write_transcripts(
        [
            transcript("1", "Good morning", "good morning", speaker="x", language="da"),
            transcript("2", "good night all", "good knight", speaker="y", language="da"),
        ],
        tmp_path / "transcripts.jsonl",
    )
    found = score(tmp_path)
    assert (found.normaliser, found.words, found.utterances) == ("basic/1", 5, 2)
    assert (found.substitutions, found.deletions, found.insertions, found.wer) == (1, 1, 0, 0.4)
    assert (found.character_errors, found.characters) == (5, 26)  # a k before night, and " all" lost
    assert found.cer == 5 / 26
    assert found.by_speaker["x"].wer == 0.0
    assert found.by_speaker["y"].wer == pytest.approx(2 / 3)
    assert found.by_language["da"].words == 5
    assert found.baseline is None
    assert (found.p_value, found.p_mapsswe, found.mapsswe_z, found.mapsswe_segments) == (None,) * 4
    assert found.detectable_delta_wer is None


def test_the_recorded_normaliser_is_used_unless_another_is_asked_for():
    lines = [transcript("1", "the colour is three seven", "the color is 37", language="en", normaliser="basic/1")]
    assert compare(lines).wer == pytest.approx(3 / 5)
    assert compare(lines, normaliser="whisper-english").wer == 0


def test_a_comparison_goes_by_id_not_by_order():
    ours = [transcript("1", "a b", "a b"), transcript("2", "c d", "c x")]
    theirs = [transcript("2", "c d", "y x"), transcript("1", "a b", "a b")]
    found = compare(ours, theirs)
    assert found.delta_wer == pytest.approx(-0.25)
    assert found.baseline is not None
    assert found.baseline.wer == 0.5
    assert (found.mapsswe_segments, found.mapsswe_z, found.p_mapsswe) == (1, None, None)  # one segment, no spread
    assert found.detectable_delta_wer == pytest.approx(2.801585**2 / 4)  # four words are too few for any change


def test_lengths_go_from_short_to_long_without_empty_ones():
    lines = [
        transcript("1", "a b", "a", duration_s=20.0),
        transcript("2", "a b c", "a b c", duration_s=2.0),
        transcript("3", "a", "a b", duration_s=61.5),
        transcript("4", "a b", "a x", duration_s=1.99),
        transcript("5", "a b", "x x", duration_s=4.999),
        transcript("6", "a b c d", "", duration_s=None),
        transcript("7", "", "", duration_s=10.0),
    ]
    found = compare(lines, lines)
    told = [
        (name, s.wer, s.substitutions, s.deletions, s.insertions, s.words, s.utterances)
        for name, s in found.by_length.items()
    ]
    assert told == [
        ("0-2 s", 1 / 2, 1, 0, 0, 2, 1),
        ("2-5 s", 2 / 5, 2, 0, 0, 5, 2),
        ("10-20 s", None, 0, 0, 0, 0, 1),
        ("20 s-", 2 / 3, 0, 1, 1, 3, 2),
    ]
    assert found.baseline is not None
    assert found.baseline.by_length == found.by_length
    assert compare([transcript("1", "a", "a")]).by_length == {}


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ([transcript("1", "a", "a")], "'2' is missing from"),
        ([transcript("1", "a", "a"), transcript("2", "c", "b")], "'2' has another reference in"),
        ([transcript(n, t, "") for n, t in (("1", "a"), ("2", "b"), ("3", "c"))], "'3' is only in"),
    ],
)
def test_transcripts_of_other_data_are_not_compared(theirs, message):
    with pytest.raises(UserError, match=message):
        compare([transcript("1", "a", "a"), transcript("2", "b", "b")], theirs)


def test_references_without_any_word_have_no_rate():
    with pytest.raises(UserError, match="no reference holds a word"):
        compare([transcript("1", "…", "a")])


def test_transcripts_survive_the_disk(tmp_path):
    lines = [transcript("1", 'a\u2028b "q" \\', "ø\n", language="da", duration_s=1.5), transcript("2", "", "")]
    write_transcripts(lines, tmp_path / "t.jsonl")
    assert read_transcripts(tmp_path / "t.jsonl") == lines
    assert [path.name for path in tmp_path.iterdir()] == ["t.jsonl"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "t.jsonl"
    write_transcripts([transcript("1", "a", "a")], path)
    old = path.read_bytes()

    def interrupted():
        yield transcript("2", "b", "b")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_transcripts(interrupted(), path)
    assert path.read_bytes() == old
    assert [each.name for each in tmp_path.iterdir()] == ["t.jsonl"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no transcripts"),
        ('{"id": "1"', "line 1: .*JSON"),
        ('\n{"id": "1", "audio": "a", "text": "t"}', "line 2: hypothesis: Field required"),
        ('{"id": "1", "audio": "a", "text": "t", "hypothesis": ""}\n' * 2, "id '1' comes twice"),
    ],
)
def test_bad_transcripts_are_refused_with_their_line(tmp_path, content, message):
    path = tmp_path / "t.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_transcripts(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_transcripts(tmp_path / "absent.jsonl")


def test_scoring_imports_no_torch(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"id": "1", "audio": "a", "text": "one dog", "hypothesis": "one", "language": "en"}))
    code = f"import sys; from paretone.results import score; print(score({str(path)!r}).wer, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0.5", "False"]
