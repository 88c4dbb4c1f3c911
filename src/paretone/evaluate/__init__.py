"""Evaluation: what a model hears, what it costs, and how it compares."""

from paretone.evaluate.decode import Decoded, Recogniser, decode, recogniser
from paretone.evaluate.evaluate import evaluate
from paretone.evaluate.measure import count_macs, count_parameters
from paretone.evaluate.transcribe import Transcription, transcribe

__all__ = [
    "Decoded",
    "Recogniser",
    "Transcription",
    "count_macs",
    "count_parameters",
    "decode",
    "evaluate",
    "recogniser",
    "transcribe",
]
