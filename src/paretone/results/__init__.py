"""Results: what an evaluation found, how it is counted, and whether a difference is real."""

from paretone.results.counts import Errors, count_characters, count_words
from paretone.results.mapsswe import MatchedPairs, matched_pairs
from paretone.results.normalise import choose, normaliser
from paretone.results.schema import Comparison, Result, Scores, read_result, write_result
from paretone.results.scoring import compare, score
from paretone.results.significance import Verdict, detectable_delta, paired_bootstrap, wer_interval
from paretone.results.transcripts import Transcript, read_transcripts, write_transcripts

__all__ = [
    "Comparison",
    "Errors",
    "MatchedPairs",
    "Result",
    "Scores",
    "Transcript",
    "Verdict",
    "choose",
    "compare",
    "count_characters",
    "count_words",
    "detectable_delta",
    "matched_pairs",
    "normaliser",
    "paired_bootstrap",
    "read_result",
    "read_transcripts",
    "score",
    "wer_interval",
    "write_result",
    "write_transcripts",
]
