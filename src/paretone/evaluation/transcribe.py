"""What is said in recordings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paretone.data import Utterance, measure_audio
from paretone.errors import UserError
from paretone.evaluation.decode import BATCH_S, decode
from paretone.model import load
from paretone.model.hearing import recogniser
from paretone.model.loading import chosen_device


@dataclass(frozen=True)
class Transcription:
    """What was heard in one recording."""

    audio: str
    text: str
    duration_s: float


def transcribe(
    model: str | Path,
    audios: Sequence[str | Path],
    *,
    revision: str | None = None,
    language: str | None = None,
    batch_s: float = BATCH_S,
    device: str = "cpu",
) -> list[Transcription]:
    """What ``model`` hears in each file, in the order given.

    Args:
        model: local folder, hub id or embedded name.
        audios: files of any rate and length; long ones are cut at quiet points.
        language: told to a multilingual Whisper; otherwise it finds out.
        device: as in `evaluate`.

    Raises:
        UserError: if the model can't be used, no file is given, or one can't be read to its end.
    """
    if not audios:
        raise UserError("no audio to transcribe; give one or more files")
    recordings = [_recording(Path(audio), language) for audio in audios]
    device = chosen_device(device)
    loaded, processor = load(model, revision=revision, device=device, dtype="float32" if device == "cpu" else None)
    decoded = decode(recogniser(str(model), loaded, processor), recordings, batch_s=batch_s)
    return [Transcription(r.name, text, r.duration_s) for r, text in zip(recordings, decoded.texts, strict=True)]


def _recording(path: Path, language: str | None) -> Utterance:
    return Utterance(str(path), path, str(path), "", language, None, measure_audio(path))
