"""Audio from files or bytes, as mono float32 at 16 kHz; what is broken is refused by name."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from paretone.data.records import BadUtteranceError
from paretone.errors import UserError

RATE_HZ = 16_000
SHORTEST_S = 0.025  # one frame of the models' front ends

_BLOCK = 1 << 20  # samples per channel read at a time, so that an hour of audio never lies in memory at its own rate
_UNKNOWN_SIZES = (0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000)  # written to WAV headers by programs that stream


def read_audio(audio: Path | bytes, *, name: str | None = None) -> np.ndarray:
    """Read one recording, mixed down to one channel and resampled.

    Args:
        audio: a file in any format that libsndfile reads, or the bytes of one.
        name: what to call it in errors; the path by default.

    Returns:
        (samples,), float32, 16 kHz.

    Raises:
        BadUtteranceError: if it is missing, empty, truncated, not audio, shorter than 25 ms, silent (every sample
            zero), or holds NaN or infinity.
    """
    name = name or _name(audio)
    with _open(audio, name) as file:
        blocks = _mono_blocks(file, name)
        if file.samplerate == RATE_HZ:
            return np.concatenate(list(blocks))
        resampler = soxr.ResampleStream(file.samplerate, RATE_HZ, 1, dtype="float32")
        parts = [resampler.resample_chunk(block) for block in blocks]
        parts.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        return np.concatenate(parts)


def measure_audio(audio: Path | bytes, *, name: str | None = None) -> float:
    """The length of a recording in seconds, after the same checks as `read_audio`."""
    name = name or _name(audio)
    with _open(audio, name) as file:
        return sum(len(block) for block in _mono_blocks(file, name)) / file.samplerate


def _name(audio: Path | bytes) -> str:
    return str(audio) if isinstance(audio, Path) else "audio"


def _open(audio: Path | bytes, name: str) -> soundfile.SoundFile:
    _refuse_nothing(audio, name)
    try:
        return soundfile.SoundFile(io.BytesIO(audio) if isinstance(audio, bytes) else audio)
    except soundfile.LibsndfileError as error:
        raise BadUtteranceError(
            name, f"not audio that libsndfile can read ({error.error_string.rstrip('.')})"
        ) from error
    except TypeError as error:  # soundfile takes a file named .raw for headerless samples and asks for their rate
        raise BadUtteranceError(name, "headerless audio; convert it to WAV or FLAC") from error


def _refuse_nothing(audio: Path | bytes, name: str) -> None:
    if isinstance(audio, Path):
        if not audio.exists():
            raise BadUtteranceError(name, "no such file")
        if not audio.is_file():
            raise BadUtteranceError(name, "not a file")
    size = audio.stat().st_size if isinstance(audio, Path) else len(audio)
    if size == 0:
        raise BadUtteranceError(name, "empty, 0 bytes")


def _mono_blocks(file: soundfile.SoundFile, name: str) -> Iterator[np.ndarray]:
    """The recording block by block at its own rate, mixed down; what is wrong with it is raised by the end."""
    read, silent, cancels = 0, True, True
    for block in _blocks(file, name):
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            first_s = (read + int(finite.argmin())) / file.samplerate
            raise BadUtteranceError(name, f"holds NaN or infinity, first at {first_s:.2f} s")
        mono = block.mean(axis=1) if block.shape[1] > 1 else block[:, 0]
        silent, cancels = silent and not block.any(), cancels and not mono.any()
        read += len(mono)
        yield mono
    _refuse_truncated(file, read, name)
    if read < SHORTEST_S * file.samplerate:
        raise BadUtteranceError(
            name, f"{1000 * read / file.samplerate:.1f} ms long; {1000 * SHORTEST_S:.0f} ms is the least"
        )
    if cancels:
        raise BadUtteranceError(name, "silent, every sample is zero" if silent else "its channels cancel each other")


def _blocks(file: soundfile.SoundFile, name: str) -> Iterator[np.ndarray]:
    while True:
        try:
            block = file.read(_BLOCK, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise BadUtteranceError(name, f"truncated or damaged ({error.error_string.rstrip('.')})") from error
        if not len(block):
            return
        yield block


def _refuse_truncated(file: soundfile.SoundFile, read: int, name: str) -> None:
    """libsndfile plays half a file without complaint; its log and the header tell."""
    notes = file.extra_info
    if match := re.search(r"data : (\d+) \(should be (\d+)\)", notes):
        promised, found = int(match[1]), int(match[2])
        if promised > found and promised not in _UNKNOWN_SIZES:
            raise BadUtteranceError(name, f"truncated: {found} of {promised} bytes of samples are there")
    if re.search(r"lacks an end-of-stream bit|Junk after the last page|File ended unexpectedly", notes, re.IGNORECASE):
        raise BadUtteranceError(name, "truncated: the last page of the Ogg stream is missing or not whole")
    if read < file.frames and file.frames < 2**62:
        raise BadUtteranceError(name, f"truncated: {read} of {file.frames} samples are there")


def segment(samples: np.ndarray, rate_hz: int, max_s: float) -> list[np.ndarray]:
    """Cut a long recording into pieces of at most ``max_s``; joined they are the recording again.

    Each cut lies at the quietest tenth of a second in the last fifth of what a piece may hold, the first of equals. A
    recording that fits is one piece.

    Args:
        samples: (samples,), one channel.
        max_s: longest piece in seconds, at least 1.
    """
    if max_s < 1:
        raise UserError(f"pieces of {max_s} s are too short to cut between words; allow at least 1 s")
    longest = int(max_s * rate_hz)
    pieces, first = [], 0
    while len(samples) - first > longest:
        end = min(first + longest, len(samples) - longest // 10)  # leaves no crumb as the last piece
        start = first + longest * 4 // 5
        cut = start + _quietest(samples[start:end], rate_hz)
        pieces.append(samples[first:cut])
        first = cut
    return [*pieces, samples[first:]]


def _quietest(samples: np.ndarray, rate_hz: int) -> int:
    """The middle of the 100 ms with least energy, in steps of 10 ms."""
    step = rate_hz // 100
    steps = len(samples) // step
    energies = np.square(samples[: steps * step].astype(np.float64)).reshape(steps, step).sum(axis=1)
    width = min(10, steps)
    return int(np.convolve(energies, np.ones(width), mode="valid").argmin() * step + width * step // 2)
