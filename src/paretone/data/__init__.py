"""Data: recordings and what is said in them."""

from paretone.data.audio import RATE_HZ, measure_audio, read_audio, segment
from paretone.data.opening import open_data
from paretone.data.prepare import Prepared, prepare
from paretone.data.probe import probes
from paretone.data.records import BadUtteranceError, Data, SkippedAudio, Utterance
from paretone.data.seen import (
    AUDIO_KEY,
    CALIBRATION_FILE,
    TRAINING_FILE,
    audio_digests,
    read_making,
    refuse_seen,
    seen_utterances,
    write_making,
)

__all__ = [
    "AUDIO_KEY",
    "CALIBRATION_FILE",
    "RATE_HZ",
    "TRAINING_FILE",
    "BadUtteranceError",
    "Data",
    "Prepared",
    "SkippedAudio",
    "Utterance",
    "audio_digests",
    "measure_audio",
    "open_data",
    "prepare",
    "probes",
    "read_audio",
    "read_making",
    "refuse_seen",
    "seen_utterances",
    "segment",
    "write_making",
]
