"""A model and data in, the same model trained further out."""

import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from paretone.checkpoint import Checkpoint, locate, open_checkpoint
from paretone.data import (
    AUDIO_KEY,
    TRAINING_FILE,
    Data,
    audio_digests,
    open_data,
    read_making,
    write_making,
)
from paretone.errors import UserError
from paretone.families import SLAM
from paretone.folders import check_apart, check_new_folder, new_folder
from paretone.model import load
from paretone.model.hearing import Recogniser, recogniser
from paretone.train.card import training_card
from paretone.train.samples import Sample, samples_of
from paretone.train.settings import Settings, option
from paretone.train.task import Dev
from paretone.train.unfinished import unfinished
from paretone.version import __version__

SIDE_FILES = (".json", ".txt", ".model", ".jinja", ".py", ".yaml")
CHECKPOINT_EVERY_S = 300.0


@dataclass(frozen=True)
class Finetuned:
    """What ``finetune`` did; ``record`` is the content of training.json without its list of recordings."""

    out: Path
    record: Mapping[str, Any]
    notices: tuple[str, ...]

    @property
    def dev_wer(self) -> float | None:
        """Of the weights in ``out``, where there was a dev set."""
        rate: float | None = self.record["dev_wer"]
        return rate

    def summary(self) -> dict[str, Any]:
        """The object that ``finetune --json`` prints."""
        return {"out": str(self.out), **self.record, "notices": list(self.notices)}


def finetune(
    model: str | Path,
    out: str | Path,
    data: str | Path,
    settings: Settings,
    *,
    dev: Dev | None = None,
    limit: int | None = None,
    language: str | None = None,
    skip_bad: bool = False,
    revision: str | None = None,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    restart: bool = False,
    overwrite: bool = False,
    command: str | None = None,
) -> Finetuned:
    """Trains ``model`` on ``data`` and writes it to the folder ``out``, which appears only when it is complete.

    Meanwhile the run lives in ``OUT.unfinished``. Interrupted or killed, the same call goes on from its last
    checkpoint and, on one machine with as many threads, ends with the same bytes as if nothing had happened (on a GPU,
    whose sums have no fixed order, with the same but for rounding).

    Args:
        model: folder, hub id or embedded name, of a CTC class or WhisperForConditionalGeneration.
        data: see `paretone.data.open_data`, also for ``limit``, ``language`` and ``skip_bad``; of what has several
            splits, "train".
        dev: decoded after every epoch; the weights with the lowest WER are kept.
        checkpoint_every_s: seconds between checkpoints; one more comes after each epoch.
        restart: throw an unfinished run of ``out`` away.
        command: what to record as the way to make it.

    Raises:
        UserError: for anything wrong with the model, the data, the settings or ``out``, or if an unfinished run
            differs in any of them.
        KeyboardInterrupt: after a checkpoint was saved, when SIGINT or SIGTERM comes.
    """
    out = Path(out)
    check_place()
    folder = locate(model, revision)
    check_apart(folder, out)
    check_new_folder(out, overwrite=overwrite, ours=(TRAINING_FILE,))
    checkpoint = open_checkpoint(folder)
    ready = _loaded(str(model), checkpoint, settings.seed)
    device = _device()
    settings = settings.resolved(is_whisper=ready.is_whisper, has_dev=dev is not None, device=device)
    found = open_data(data, limit=limit, skip_bad=skip_bad, language=language, split="train")
    refuse_shared(found, dev)
    samples, notices = samples_of(ready, found)
    notices += _skipped(found) + (_skipped(dev.data) if dev else [])
    facts = _facts(str(model), revision, checkpoint, found, dev, settings, device, language)
    with unfinished(out, _identity(facts), restart=restart) as run:
        from paretone.train.finetuning import Finetuning
        from paretone.train.trainer import run_training  # needs accelerate

        trained = run_training(Finetuning(ready, checkpoint, samples, settings, run, dev, checkpoint_every_s))
        record = facts | {
            "samples": len(samples),
            **vars(trained),
            "notices": notices,
            "command": command or f"paretone finetune {model} OUT --data {data}",
        }
        with new_folder(out, overwrite=overwrite, ours=(TRAINING_FILE,)) as partial:
            _write_all(checkpoint, run.best, record, samples, partial)
    return Finetuned(out, record, tuple(notices))


def check_place(*, alone: bool = True) -> None:
    """Raises UserError where nothing can be trained, or, if it must be ``alone``, among several processes."""
    try:
        version("accelerate")
    except PackageNotFoundError as error:
        raise UserError("fine-tuning needs the package accelerate; pip install 'paretone[train]'") from error
    if alone and os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError(f"WORLD_SIZE is {os.environ['WORLD_SIZE']}; fine-tuning runs in one process, start it without")


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _loaded(name: str, checkpoint: Checkpoint, seed: int) -> Recogniser:
    """In float32, whatever is stored."""
    from transformers import set_seed

    if checkpoint.config.get("model_type") == SLAM:
        raise UserError(f"{name} is a speech LLM; paretone slam train trains those, with projector.start: {name}")
    set_seed(seed)  # a mask embedding that the checkpoint lacks starts by chance
    model, processor = load(checkpoint.folder, dtype="float32")
    return recogniser(name, model, processor)


def _skipped(found: Data) -> list[str]:
    return [f"skipped: {each.audio}: {each.reason}" for each in found.skipped]


def refuse_shared(found: Data, dev: Dev | None) -> None:
    """Raises UserError if a recording is in both sets."""
    if dev is None:
        return
    shared = set(audio_digests(found.utterances)) & set(audio_digests(dev.data.utterances))
    if shared:
        raise UserError(
            f"{found.name} and the dev set {dev.data.name} share {len(shared)} recordings; give a dev set of others"
        )


def _facts(
    name: str,
    revision: str | None,
    checkpoint: Checkpoint,
    found: Data,
    dev: Dev | None,
    settings: Settings,
    device: str,
    language: str | None,
) -> dict[str, Any]:
    """What goes into training.json and is known before the training."""
    return {
        "format": 1,
        "model": {
            "name": name,
            "revision": revision,
            "digest": checkpoint.digest(),
            "plan_digest": checkpoint.plan_digest(),  # tells whether OUT was compressed again after this training
        },
        "data": data_facts(found),
        "dev": None if dev is None else data_facts(dev.data),
        "settings": vars(settings) | {"language": language},
        "device": device,
        "versions": {"paretone": __version__, "python": platform.python_version()}
        | {name: version(name) for name in ("torch", "transformers", "accelerate")},
    }


def data_facts(found: Data) -> dict[str, Any]:
    """What a training's record says of its data."""
    return {
        "name": found.name,
        "path": found.path,
        "digest": found.digest,
        "utterances": len(found.utterances),
        "audio_s": found.audio_s,
        "skipped": len(found.skipped),
        "attribution": found.attribution,
    }


def _identity(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that decides what comes out, under the words that the user knows it by."""
    settings = {option(name): value for name, value in facts["settings"].items()}
    return {
        "MODEL": facts["model"]["digest"],
        "--data": facts["data"]["digest"],
        "--dev": facts["dev"] and facts["dev"]["digest"],
        **settings,
        "device": facts["device"],
        **{f"version of {name}": number for name, number in facts["versions"].items()},
    }


def _write_all(
    checkpoint: Checkpoint, weights: Path, record: Mapping[str, Any], samples: Sequence[Sample], partial: Path
) -> None:
    """The source's files as they are but for weights, card and training.json."""
    for path in sorted(checkpoint.folder.iterdir()):
        is_side = path.is_file() and path.suffix in SIDE_FILES and ".safetensors" not in path.name
        if is_side and path.name != TRAINING_FILE:
            shutil.copyfile(path, partial / path.name)
    for path in weights.iterdir():
        shutil.copyfile(path, partial / path.name)
    before = read_making(checkpoint.folder, TRAINING_FILE)
    heard = {*audio_digests([sample.utterance for sample in samples]), *before.get(AUDIO_KEY, ())}
    earlier = {key: value for key, value in before.items() if key not in (AUDIO_KEY, "before", "curve")}
    all_before = [*before.get("before", []), *([earlier] if earlier else [])]
    write_making(partial / TRAINING_FILE, {**record, "before": all_before}, sorted(heard))
    card = checkpoint.folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.exists() else None
    is_ours = any((checkpoint.folder / name).exists() for name in ("plan.json", TRAINING_FILE))
    (partial / "README.md").write_text(training_card(record, text, is_ours=is_ours), encoding="utf-8")
