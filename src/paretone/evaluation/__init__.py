"""Evaluation: what a model hears, what it costs, and how it compares."""

from paretone.evaluation.decode import Decoded, decode
from paretone.evaluation.evaluate import Run, decode_once, evaluate, word_error_rate
from paretone.evaluation.measure import count_macs, count_parameters
from paretone.evaluation.transcribe import Transcription, transcribe
from paretone.model.hearing import Recogniser, recogniser

__all__ = [
    "Decoded",
    "Recogniser",
    "Run",
    "Transcription",
    "count_macs",
    "count_parameters",
    "decode",
    "decode_once",
    "evaluate",
    "recogniser",
    "transcribe",
    "word_error_rate",
]
