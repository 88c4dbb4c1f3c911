"""Synthetic speech from eSpeak NG, called through ctypes, with the time at which each word begins."""

import ctypes
import zlib
from functools import cache

import espeakng_loader
import numpy as np

SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS of speak_lib.h
CHARS_UTF8 = 1
RATE_WPM, PITCH, PITCH_RANGE = 1, 3, 4  # espeak_PARAMETER
EVENT_END, EVENT_WORD = 0, 1


class _Event(ctypes.Structure):
    """``espeak_EVENT`` of speak_lib.h; the last field is a union of 8 bytes."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Synthesiser:
    """One eSpeak in this process; it holds global state, so use ``the_synthesiser``."""

    def __init__(self) -> None:
        self.library = ctypes.cdll.LoadLibrary(espeakng_loader.get_library_path())
        self.rate_hz = self.library.espeak_Initialize(SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
        if self.rate_hz <= 0:
            raise RuntimeError("espeak-ng did not start")
        self._chunks: list[np.ndarray] = []
        self._words: list[tuple[int, int]] = []
        self._callback = CALLBACK(self._receive)  # kept: ctypes doesn't hold a reference
        self.library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples, count: int, events) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        number = 0
        while events[number].type != EVENT_END:
            if events[number].type == EVENT_WORD:
                self._words.append((events[number].text_position - 1, events[number].audio_position_ms))
            number += 1
        return 0

    def speak(
        self, text: str, voice: str, *, words_per_minute: int, pitch: int, pitch_range: int
    ) -> tuple[np.ndarray, list[tuple[int, float]]]:
        """Samples (int16, ``rate_hz``), and for each word its first character in ``text`` and its start in seconds."""
        self._chunks, self._words = [], []
        if self.library.espeak_SetVoiceByName(voice.encode()):
            raise RuntimeError(f"espeak-ng has no voice {voice}")
        for parameter, value in ((RATE_WPM, words_per_minute), (PITCH, pitch), (PITCH_RANGE, pitch_range)):
            self.library.espeak_SetParameter(parameter, value, 0)
        data = text.encode()
        # breath is random, by a seed that is otherwise the time of day
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(zlib.crc32(f"{voice}: {text}".encode())))
        self.library.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, 0, 0, CHARS_UTF8, None, None)
        self.library.espeak_Synchronize()
        samples = np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.int16)
        return samples, [(position, ms / 1000) for position, ms in self._words]


@cache
def the_synthesiser() -> Synthesiser:
    """The one of this process."""
    return Synthesiser()
