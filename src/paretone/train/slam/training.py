"""A recipe in, a trained speech LLM out."""

import dataclasses
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paretone.data import TRAINING_FILE, Data, audio_digests, open_data, write_making
from paretone.data.audio import read_audio
from paretone.errors import UserError
from paretone.folders import check_new_folder, new_folder
from paretone.model.hearing import window_of
from paretone.model.slam.adapters import Lora, has_lora
from paretone.model.slam.assembly import (
    new_slam,
    put_weights,
    save_slam,
    save_weights,
    start_projector,
    stored_depth,
    whole_tower,
)
from paretone.model.slam.processing import padded
from paretone.train.finetune import CHECKPOINT_EVERY_S, check_place, data_facts, refuse_shared
from paretone.train.settings import precision_on
from paretone.train.slam.distil import Distilling, distil
from paretone.train.slam.features import FeatureCache, cache_of, fill
from paretone.train.slam.layers import kept_layers
from paretone.train.slam.recipe import SlamRecipe, Training
from paretone.train.slam.samples import BucketOrder, SlamSample, bucket_order, slam_samples
from paretone.train.task import Dev, Task
from paretone.train.together import is_main, join, one_run, wait, world
from paretone.train.unfinished import Unfinished
from paretone.version import __version__

DEFAULT_BATCH = 8
LONGEST_ANSWER = 256
DevMaker = Callable[[str], Dev]


@dataclass(frozen=True)
class SlamSettings:
    """`Training` with nothing left open, in the words of `Task`."""

    epochs: int
    batch: int | None
    batch_s: float | None
    accumulate: int
    learning_rate: float
    weight_decay: float
    warm_up: float
    floor: float
    precision: str
    gradient_checkpointing: bool
    patience: int | None
    seed: int
    report_to: tuple[str, ...]

    @property
    def scheduler(self) -> tuple[str, dict[str, float]]:
        """A cosine that ends at ``floor`` of the highest rate and stays there."""
        return "cosine_with_min_lr", {"min_lr_rate": self.floor}


def resolved(training: Training, device: str) -> SlamSettings:
    """The settings of a recipe on this machine."""
    fields = training.model_dump()
    if training.batch is None and training.batch_s is None:
        fields["batch"] = DEFAULT_BATCH
    return SlamSettings(**{**fields, "precision": precision_on(training.precision, device)})


@dataclass
class SlamTask(Task):
    """A projector, and adapters where there are any, as a task; ``features`` hold what the frozen encoder gives."""

    model: Any
    processor: Any
    samples: Sequence[SlamSample]
    settings: SlamSettings
    run: Unfinished
    dev: Dev | None
    checkpoint_every_s: float
    features: Mapping[str, Tensor] | None = None
    heard: list[str] = dataclasses.field(default_factory=list)

    @cached_property
    def order(self) -> BucketOrder:
        """By seconds of audio."""
        return bucket_order(self.samples, self.settings)

    def prepare(self) -> None:
        """The parts are frozen since they were put together."""

    def collate(self, samples: Sequence[SlamSample]) -> dict[str, Tensor]:
        """Features of the encoder or of the audio, and the answers."""
        labels = padded([sample.labels for sample in samples])
        self.heard = [sample.utterance.name for sample in samples]
        if self.features is None:
            waves = [read_audio(sample.utterance.audio, name=sample.utterance.name) for sample in samples]
            return {**self.processor.inputs(waves, None), "labels": labels}
        rows = [self.features[sample.key] for sample in samples]
        lengths = torch.tensor([[len(row)] for row in rows])
        hidden = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.arange(hidden.shape[1]) < lengths
        return {"encoder_hidden_states": hidden, "attention_mask": mask, "labels": labels}

    def loss(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        """Cross entropy of answers and ends."""
        loss: Tensor = model(**batch, num_items_in_batch=1).loss
        return loss

    def names(self, batch: dict[str, Tensor]) -> str:
        """Those of the last batch."""
        more = f" and {len(self.heard) - 4} more" if len(self.heard) > 4 else ""
        return ", ".join(self.heard[:4]) + more

    def state(self) -> Mapping[str, Tensor]:
        """Projector and adapters."""
        return {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Projector and adapters."""
        own = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        if own.keys() != state.keys():
            raise UserError(f"{self.run.folder}: its checkpoint is of another model; pass --restart to start anew")
        with torch.no_grad():
            for name, tensor in state.items():
                own[name].copy_(tensor)

    def keep(self, folder: Path) -> None:
        """Projector and adapters; they are stored as they are."""
        save_weights(self.model, folder)


@dataclass(frozen=True)
class Trained:
    """What ``train_slam`` did; ``record`` is the content of training.json without its list of recordings."""

    out: Path
    record: Mapping[str, Any]
    notices: tuple[str, ...]


def train_slam(
    recipe: SlamRecipe,
    out: str | Path,
    *,
    dev: DevMaker,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    restart: bool = False,
    overwrite: bool = False,
    command: str = "",
) -> Trained:
    """Trains what ``recipe`` says and writes the run to ``out``, which appears only when it is complete.

    Meanwhile it lives in ``OUT.unfinished``; the same call goes on from its last checkpoint and, on one machine with as
    many threads, ends with the same weights as if nothing had happened.

    Args:
        dev: makes the dev set of the recipe's words, with the way to count its errors.

    Raises:
        UserError: for anything wrong with the recipe, its parts, data or ``out``.
        KeyboardInterrupt: after a checkpoint was saved, when SIGINT or SIGTERM comes.
    """
    from transformers import set_seed

    out = Path(out)
    check_place(alone=False)
    join()
    check_new_folder(out, overwrite=overwrite, ours=(TRAINING_FILE,))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = resolved(recipe.training, device)
    found = _training_data(recipe)
    held_out = dev(recipe.data.dev) if recipe.data.dev is not None else None
    refuse_shared(found, held_out)
    set_seed(settings.seed)
    model, processor = _assembled(recipe, device)
    samples, notices = _samples(recipe, found, processor)
    facts = _facts(recipe, model, found, held_out, settings, device)
    with one_run(out, _identity(facts), restart=restart) as run:
        from paretone.train.trainer import run_training  # needs accelerate

        distilled = None
        if recipe.encoder.distil is not None:
            distilled = _distilled(recipe, model, processor, samples, settings, run, checkpoint_every_s)
        features = None if recipe.features is None else _cached(recipe, model, processor, samples)
        task = SlamTask(model, processor, samples, settings, run, held_out, checkpoint_every_s, features)
        trained = run_training(task)
        record = facts | {"samples": len(samples), **vars(trained), "notices": notices, "command": command}
        record["distilled_mse"] = distilled
        if not is_main():
            return Trained(out, record, tuple(notices))
        with new_folder(out, overwrite=overwrite, ours=(TRAINING_FILE,)) as partial:
            put_weights(model, run.best)
            save_slam(model, processor, partial)
            write_making(partial / TRAINING_FILE, record, audio_digests([s.utterance for s in samples]))
    return Trained(out, record, tuple(notices))


def _training_data(recipe: SlamRecipe) -> Data:
    data = recipe.data
    return open_data(data.train, limit=data.limit, split="train", skip_bad=data.skip_bad, language=data.language)


def _samples(recipe: SlamRecipe, found: Data, processor: Any) -> tuple[list[SlamSample], list[str]]:
    window_s = window_of(processor.feature_extractor)
    return slam_samples(found, processor, text=recipe.data.text, window_s=window_s, longest=LONGEST_ANSWER)


def _assembled(recipe: SlamRecipe, device: str) -> tuple[Any, Any]:
    encoder, lm, projector = recipe.encoder, recipe.language_model, recipe.projector
    layers = kept_layers(encoder, encoder_depth(recipe), recipe.pad_to_30s)
    lora = None if recipe.lora is None else Lora(**recipe.lora.model_dump())
    model, processor = new_slam(
        encoder.model,
        lm.model,
        encoder_revision=encoder.revision,
        language_model_revision=lm.revision,
        layers=layers,
        projector=projector.name,
        projector_settings=projector.settings,
        match_embeddings=projector.match_embeddings,
        lora=lora,
        prompt=recipe.prompt,
        pad_to_window=recipe.pad_to_30s,
        max_new_tokens=recipe.decoding.max_new_tokens,
        num_beams=recipe.decoding.beams,
        dtype="float32" if device == "cpu" else None,
    )
    if projector.start is not None:
        start_projector(model, projector.start)
    return model, processor


def _distilled(
    recipe: SlamRecipe,
    model: Any,
    processor: Any,
    samples: Sequence[SlamSample],
    settings: SlamSettings,
    run: Unfinished,
    checkpoint_every_s: float,
) -> float:
    """Teaches the model's encoder, which the run then holds itself, in float32 however it is stored."""
    how = recipe.encoder.distil
    assert how is not None
    model.audio_tower.float()
    model.audio_tower.config.dtype = torch.float32
    teacher = whole_tower(recipe.encoder.model, recipe.encoder.revision)
    mine = dataclasses.replace(settings, epochs=how.epochs, learning_rate=how.learning_rate, patience=None)
    inner = Unfinished(run.folder / "distilling")
    loss = distil(Distilling(model.audio_tower, teacher, processor, samples, mine, inner, checkpoint_every_s))
    model.config.audio_source = None
    return loss


def encoder_depth(recipe: SlamRecipe) -> int:
    """Layers of the encoder as it is stored."""
    return stored_depth(recipe.encoder.model, recipe.encoder.revision)


def _cached(recipe: SlamRecipe, model: Any, processor: Any, samples: Sequence[SlamSample]) -> Mapping[str, Tensor]:
    """The encoder's features of all samples, from the cache, into which what is missing is put first."""
    cache = caches_of(recipe, model, processor, [len(model.config.audio_source["layers"])])[0]
    if torch.cuda.is_available():
        model.audio_tower.cuda()
    if is_main():
        fill([cache], model.audio_tower, processor, samples, gb=recipe.features.gb)  # type: ignore[union-attr]
    wait()
    return cache.read([sample.key for sample in samples])


def caches_of(recipe: SlamRecipe, model: Any, processor: Any, depths: Sequence[int]) -> list[FeatureCache]:
    """The caches of a recipe's encoder at several depths.

    Raises:
        UserError: if the recipe has no cache, or drops layers other than the last ones.
    """
    if recipe.features is None:
        raise UserError("the recipe has no features.cache; say where they are to be kept")
    ways = [w for w in ("drop", "drop_middle", "drop_similar") if getattr(recipe.encoder, w) is not None]
    if ways:
        raise UserError(f"features are kept of the first layers of an encoder; encoder.{ways[0]} has none to share")
    source = model.config.audio_source
    return [cache_of(recipe.features.cache, source, processor.feature_extractor, depth) for depth in depths]


def fill_features(recipe: SlamRecipe, depths: Sequence[int] | None = None) -> dict[str, Any]:
    """Fills a recipe's cache with its training data, at the recipe's depth or at ``depths``, from one pass."""
    there = encoder_depth(recipe)
    wanted = sorted(set(depths or [len(kept_layers(recipe.encoder, there, recipe.pad_to_30s))]))
    if not 1 <= wanted[0] <= wanted[-1] <= there:
        raise UserError(f"--depths {wanted}: {recipe.encoder.model} has {there} layers, so give 1 to {there}")
    whole = recipe.model_copy(update={"encoder": recipe.encoder.model_copy(update={"keep": wanted[-1]}), "lora": None})
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, processor = _assembled(whole, device)
    model.audio_tower.to(device)
    caches = caches_of(recipe, model, processor, wanted)
    samples, _ = _samples(recipe, _training_data(recipe), processor)
    gb = recipe.features.gb  # type: ignore[union-attr]
    heard = fill(caches, model.audio_tower, processor, samples, gb=gb)
    size = sum(path.stat().st_size for cache in caches for path in cache.shards.glob("*.safetensors"))
    return {
        "folder": str(caches[0].folder),
        "depths": wanted,
        "recordings": len(samples),
        "heard": heard,
        "bytes": size,
    }


def _facts(
    recipe: SlamRecipe, model: Any, found: Data, dev: Dev | None, settings: SlamSettings, device: str
) -> dict[str, Any]:
    """What goes into training.json and is known before the training."""
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    packages = ["torch", "transformers", "accelerate"] + ["peft"] * has_lora(model.language_model)
    return {
        "format": 1,
        "model": {"name": recipe.encoder.model, "revision": recipe.encoder.revision, "plan_digest": None}
        | {"encoder": model.config.audio_source, "language_model": model.config.text_source},
        "recipe": recipe.model_dump(mode="json"),
        "parts": dict(model.part_sizes()) | {"trainable": trainable},
        "data": data_facts(found),
        "dev": None if dev is None else data_facts(dev.data),
        "settings": dataclasses.asdict(settings),
        "device": device,
        "processes": world(),
        "versions": {"paretone": __version__, "python": platform.python_version()}
        | {name: version(name) for name in packages},
    }


def _identity(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that decides what comes out, under the words that the user knows it by."""
    recipe = {k: v for k, v in facts["recipe"].items() if k not in ("data", "training", "features", "out")}
    return {
        "encoder": facts["model"]["encoder"]["digest"],
        "language_model": facts["model"]["language_model"]["digest"],
        "data.train": facts["data"]["digest"],
        "data.dev": facts["dev"] and facts["dev"]["digest"],
        **recipe,
        **{f"training.{name}": value for name, value in facts["settings"].items()},
        "device": facts["device"],
        "processes": facts["processes"],
        "features": facts["recipe"]["features"] is not None,
        **{f"version of {name}": number for name, number in facts["versions"].items()},
    }
