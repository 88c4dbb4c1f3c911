"""Encoder features, computed once and kept: of all depths from one pass, for any number of trainings.

A cache is a folder per encoder and way of padding; in it a folder per depth holds shards: safetensors files with one
tensor (positions, width), bfloat16, for each recording, named by the digest of its bytes. Beside each shard stands its
SHA-256. Shards appear only when complete, so an interrupted pass goes on where it was.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paretone.checkpoint import LazyTensors, write_tensors
from paretone.data import RATE_HZ, Utterance, read_audio
from paretone.errors import UserError
from paretone.folders import DISK_ERRORS, write_file
from paretone.model.slam.encoders import encode
from paretone.progress import track
from paretone.train.slam.samples import SlamSample

PER_SHARD = 64


@dataclass(frozen=True)
class FeatureCache:
    """Features of one encoder at one depth.

    Attributes:
        folder: of this encoder.
        depth: how many of its layers.
    """

    folder: Path
    depth: int

    @property
    def shards(self) -> Path:
        """Where the shards of this depth lie."""
        return self.folder / f"depth-{self.depth:03d}"

    def keys(self) -> dict[str, Path]:
        """Which recording lies in which shard; shards that don't match their digest are removed."""
        found: dict[str, Path] = {}
        for path in sorted(self.shards.glob("*.safetensors")):
            note = path.with_suffix(".json")
            known = json.loads(note.read_text()) if note.exists() else {}
            if known.get("sha256") != _digest(path):
                path.unlink()
                note.unlink(missing_ok=True)
                continue
            found |= dict.fromkeys(known["recordings"], path)
        return found

    def read(self, wanted: Sequence[str]) -> Mapping[str, Tensor]:
        """Features by recording, read when they are asked for.

        Raises:
            UserError: if one is not there.
        """
        where = self.keys()
        missing = [key for key in wanted if key not in where]
        if missing:
            raise UserError(f"{self.shards} lacks {len(missing)} recordings; fill it with paretone slam features")
        return LazyTensors({key: where[key] for key in wanted})

    def write(self, features: Mapping[str, Tensor]) -> None:
        """One more shard."""
        self.shards.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256("".join(sorted(features)).encode()).hexdigest()[:16]
        partial = self.shards / f".{name}.partial-{os.getpid()}"  # another training may fill it, too
        try:
            write_tensors(partial, features)
            write_file(
                self.shards / f"{name}.json", json.dumps({"sha256": _digest(partial), "recordings": list(features)})
            )
            partial.replace(self.shards / f"{name}.safetensors")
        except OSError as error:
            partial.unlink(missing_ok=True)
            if error.errno not in DISK_ERRORS:
                raise
            raise UserError(
                f"{self.shards} can't be written: {error.strerror}; whole shards stay, free space"
            ) from error


def cache_of(root: str | Path, source: Mapping[str, Any], extractor: Any, depth: int) -> FeatureCache:
    """The cache of an encoder (its digest) behind a feature extractor (its settings)."""
    settings = {k: v for k, v in extractor.to_dict().items() if isinstance(v, int | float | str | bool)}
    what = json.dumps([source["digest"], settings], sort_keys=True)
    return FeatureCache(Path(root) / hashlib.sha256(what.encode()).hexdigest()[:16], depth)


@torch.inference_mode()
def fill(
    caches: Sequence[FeatureCache], tower: Any, processor: Any, samples: Sequence[SlamSample], *, gb: float
) -> int:
    """Computes what is missing at the depths of ``caches`` in one pass each over ``tower``, which has all layers.

    Returns how many recordings were heard.

    Raises:
        UserError: if it would take more than ``gb``, the disk is full, or a recording can't be read.
    """
    by_key = {sample.key: sample.utterance for sample in samples}
    there = {cache.depth: cache.keys() for cache in caches}
    missing = [key for key in by_key if any(key not in keys for keys in there.values())]
    _check_size(caches, tower, processor, [by_key[key] for key in missing], gb)
    missing.sort(key=lambda key: by_key[key].duration_s)
    parts = [missing[i : i + PER_SHARD] for i in range(0, len(missing), PER_SHARD)]
    for part in track(parts, "encoding", total=len(parts)):
        found: dict[int, dict[str, Tensor]] = {cache.depth: {} for cache in caches}
        for first in range(0, len(part), 8):
            keys = part[first : first + 8]
            waves = [read_audio(by_key[key].audio, name=by_key[key].name) for key in keys]
            for depth, rows in _features(tower, processor, waves, list(found)).items():
                found[depth] |= dict(zip(keys, rows, strict=True))
        for cache in caches:
            new = {key: row for key, row in found[cache.depth].items() if key not in there[cache.depth]}
            if new:
                cache.write(new)
    return len(missing)


def _features(tower: Any, processor: Any, waves: Sequence[Any], depths: Sequence[int]) -> dict[int, list[Tensor]]:
    inputs = processor.inputs(waves, RATE_HZ).to(next(tower.parameters()).device)
    given = inputs["input_features"] if "input_features" in inputs else inputs["input_values"]
    hidden, mask = encode(tower, given.to(next(tower.parameters()).dtype), inputs["attention_mask"], depths)
    lengths = mask.sum(dim=1).tolist() if mask is not None else [next(iter(hidden.values())).shape[1]] * len(waves)
    return {
        depth: [row[:n].to("cpu", torch.bfloat16).contiguous().clone() for row, n in zip(rows, lengths, strict=True)]
        for depth, rows in hidden.items()
    }


def _check_size(
    caches: Sequence[FeatureCache], tower: Any, processor: Any, utterances: Sequence[Utterance], gb: float
) -> None:
    """One recording's features tell how much all will take, since their length goes with the audio's."""
    if not utterances:
        return
    sample = utterances[0]
    rows = _features(tower, processor, [read_audio(sample.audio, name=sample.name)], [caches[0].depth])
    per_s = 2 * rows[caches[0].depth][0].numel() / max(1.0, sample.duration_s)
    new = sum(max(1.0, utterance.duration_s) for utterance in utterances) * per_s * len(caches)
    old = sum(path.stat().st_size for path in caches[0].folder.rglob("*.safetensors"))
    if (old + new) / 1e9 > gb:
        raise UserError(
            f"features of {len(utterances)} recordings at {len(caches)} depths take some {new / 1e9:.2f} GB beside the "
            f"{old / 1e9:.2f} GB that are there; features.gb (--cache-gb) allows {gb:g}"
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
