"""Speech-shaped sound from a seed: what a recogniser may hear where no recording is at hand."""

from collections.abc import Iterator

import numpy as np

from paretone.data.audio import RATE_HZ

CLIPS = 48
_FORMANTS_HZ = ((250, 850), (800, 2400), (2200, 3400), (3300, 4800))  # of adults' vowels, low to high
_MAX_S, _MIN_S = 8.0, 2.0


def probes(seed: int, *, clips: int = CLIPS) -> Iterator[np.ndarray]:
    """``clips`` sounds of 2 to 8 s, each a voice of its own: (samples,), float32, 16 kHz; equal seeds, equal sounds."""
    for clip in range(clips):
        rng = np.random.default_rng((seed, clip))
        yield _voice(rng, int(rng.uniform(_MIN_S, _MAX_S) * RATE_HZ))


def _voice(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Syllables of one voice, with pauses, over a noise floor of 10 to 50 dB below it."""
    sound = np.zeros(samples)
    pitch_hz, tract = rng.uniform(80, 280), rng.uniform(0.85, 1.25)
    at = int(rng.uniform(0, 0.3) * RATE_HZ)
    while at < samples:
        syllable = _syllable(rng, int(rng.uniform(0.06, 0.35) * RATE_HZ), pitch_hz, tract)[: samples - at]
        sound[at : at + len(syllable)] += syllable * 10 ** (rng.uniform(-18, 0) / 20)
        at += int(len(syllable) * rng.uniform(0.7, 1)) + 1
        if rng.random() < 0.2:
            at += int(rng.uniform(0.03, 0.4) * RATE_HZ)
    sound *= 0.05 / max(_level(sound), 1e-9)
    sound += rng.standard_normal(samples) * 0.05 * 10 ** (-rng.uniform(10, 50) / 20)
    return (sound * 10 ** (rng.uniform(-15, 5) / 20)).astype(np.float32)


def _syllable(rng: np.random.Generator, samples: int, pitch_hz: float, tract: float) -> np.ndarray:
    """A vowel, a hiss, a glide or a tone, in the shares 60, 25, 8 and 7 %, of level 1, faded in and out."""
    kind = rng.choice(4, p=(0.6, 0.25, 0.08, 0.07))
    if kind == 0:
        sound = _resonant(rng, _buzz(rng, samples, pitch_hz), tract, _FORMANTS_HZ)
    elif kind == 1:
        sound = _resonant(rng, rng.standard_normal(samples), 1.5 * tract, _FORMANTS_HZ[2:])
    elif kind == 2:
        frequency_hz = np.geomspace(rng.uniform(100, 4000), rng.uniform(100, 6000), samples)
        sound = np.sin(2 * np.pi * np.cumsum(frequency_hz / RATE_HZ))
    else:
        sound = np.sin(2 * np.pi * rng.uniform(100, 6000) * np.arange(samples) / RATE_HZ)
    from_ends = np.minimum(np.arange(samples), np.arange(samples)[::-1])
    sound = sound * np.minimum(1, from_ends / (rng.uniform(0.005, 0.05) * RATE_HZ))
    return sound / max(_level(sound), 1e-9)


def _buzz(rng: np.random.Generator, samples: int, pitch_hz: float) -> np.ndarray:
    """Pulses whose pitch wanders and glides by up to a fifth either way."""
    wander = 1e-3 * np.cumsum(rng.standard_normal(samples)) + np.linspace(0, rng.uniform(-0.2, 0.2), samples)
    step = pitch_hz * np.exp(wander) / RATE_HZ
    return np.diff(np.floor(np.cumsum(step)), prepend=0) - step


def _resonant(
    rng: np.random.Generator, sound: np.ndarray, tract: float, formants_hz: tuple[tuple[int, int], ...]
) -> np.ndarray:
    """``sound`` through one two-pole resonator after another, each moving from one frequency to another.

    Glides are two fixed filters, one faded into the other.
    """
    ends = [_filtered(rng, sound, tract, formants_hz) for _ in range(2)]
    fade = np.linspace(0, 1, len(sound))
    return (1 - fade) * ends[0] + fade * ends[1]


def _filtered(
    rng: np.random.Generator, sound: np.ndarray, tract: float, formants_hz: tuple[tuple[int, int], ...]
) -> np.ndarray:
    size = 2 * len(sound)  # room for the last resonance to die away
    z = np.exp(-2j * np.pi * np.fft.rfftfreq(size))
    response = np.ones_like(z)
    for low, high in formants_hz:
        angle = 2 * np.pi * min(rng.uniform(low, high) * tract / RATE_HZ, 0.49)
        radius = np.exp(-np.pi * rng.uniform(60, 200) / RATE_HZ)
        response *= (1 - radius) / (1 - 2 * radius * np.cos(angle) * z + radius**2 * z**2)
    return np.fft.irfft(np.fft.rfft(sound, size) * response, size)[: len(sound)]


def _level(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(sound))))
