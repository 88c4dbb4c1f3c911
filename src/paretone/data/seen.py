"""Which recordings a model was made with, so that nobody measures it on them unawares.

What makes a model with audio leaves a file in its folder that holds ``"audio_sha256": [...]``, made by
`audio_digests`: ``training.json`` after fine-tuning, ``calibration.json`` after calibration. Such files stay with a
model that is compressed or trained further.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paretone.data.records import Data, Utterance, digest_of_audio
from paretone.errors import UserError
from paretone.folders import write_file

TRAINING_FILE = "training.json"
CALIBRATION_FILE = "calibration.json"
AUDIO_KEY = "audio_sha256"

_MADE = {TRAINING_FILE: "fine-tuned on", CALIBRATION_FILE: "calibrated on"}
_DIGITS = 16  # 64 bits: among a million recordings two fall together by chance once in forty million such sets


def audio_digests(utterances: Sequence[Utterance]) -> list[str]:
    """The first 16 hexadecimal digits of the SHA-256 of every recording's bytes, sorted, each once.

    The same sound in another file format is another recording to it.
    """
    return sorted({_short(utterance) for utterance in utterances})


def write_making(path: Path, record: Mapping[str, Any], digests: Sequence[str]) -> None:
    """Writes such a file: ``record``, and the digests in one line."""
    text = json.dumps({**record, AUDIO_KEY: None}, indent=2, ensure_ascii=False)
    write_file(path, text.removesuffix("null\n}") + json.dumps(list(digests)) + "\n}\n")


def read_making(folder: Path, name: str) -> dict[str, Any]:
    """The content of one such file of a model's folder; empty where there is none, or one of another program's.

    Raises:
        UserError: if it is damaged.
    """
    path = folder / name
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}); fetch or write the model again") from error
    return content if isinstance(content, dict) and isinstance(content.get(AUDIO_KEY), list) else {}


def seen_utterances(folder: Path, data: Data) -> dict[str, list[str]]:
    """Ids of the utterances of ``data`` that the model in ``folder`` was made with, by file; files with none are not.

    Raises:
        UserError: if such a file is damaged.
    """
    known = {name: frozenset(read_making(folder, name).get(AUDIO_KEY, ())) for name in _MADE}
    if not any(known.values()):
        return {}  # most models: then no recording needs to be read for its digest
    digests = {utterance.id: _short(utterance) for utterance in data.utterances}
    found = {name: [each for each, digest in digests.items() if digest in made] for name, made in known.items()}
    return {name: ids for name, ids in found.items() if ids}


def refuse_seen(model: str, folder: Path, data: Data) -> None:
    """Raises UserError if the model in ``folder`` was fine-tuned or calibrated on recordings of ``data``."""
    for name, ids in seen_utterances(folder, data).items():
        raise UserError(
            f"{model} was {_MADE[name]} {len(ids)} of the {len(data.utterances)} recordings of {data.name} ({name}), "
            "so its errors there say little about others; give other data, or pass --allow-seen"
        )


def _short(utterance: Utterance) -> str:
    return digest_of_audio(utterance.audio).hex()[:_DIGITS]
