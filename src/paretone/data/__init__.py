"""Data: recordings and what is said in them."""

from paretone.data.audio import RATE_HZ, measure_audio, read_audio, segment
from paretone.data.opening import open_data
from paretone.data.records import BadUtteranceError, Data, SkippedAudio, Utterance

__all__ = [
    "RATE_HZ",
    "BadUtteranceError",
    "Data",
    "SkippedAudio",
    "Utterance",
    "measure_audio",
    "open_data",
    "read_audio",
    "segment",
]
