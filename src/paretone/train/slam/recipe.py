"""Recipes of speech LLMs, checked key by key."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from paretone.errors import UserError, did_you_mean
from paretone.model.slam.configuration import PROMPT
from paretone.plan import explain, put, read_yaml

Count = Annotated[int, Field(ge=1)]

# arXiv 2603.27981's follow-up: utterances in a batch, epochs with the projector alone and with LoRA, rank
HARMONISED = {"en": (8, 2, 4, 16), "nl": (8, 4, 8, 16), "da": (4, 6, 8, 8)}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Similar(_Part):
    """Layers that turn what passes through them least, heard on unlabelled audio."""

    layers: Count
    data: str
    limit: Count = 64


class Distil(_Part):
    """How long the pruned encoder learns to give what the whole one gives."""

    epochs: Count = 1
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4


class Encoder(_Part):
    """Which encoder, and which of its layers; at most one of ``keep``, ``drop``, ``drop_middle``, ``drop_similar``."""

    model: str
    revision: str | None = None
    keep: Count | None = None
    drop: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    drop_middle: Count | None = None
    drop_similar: Similar | None = None
    distil: Distil | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "Encoder":
        ways = [name for name in ("keep", "drop", "drop_middle", "drop_similar") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise ValueError(f"{' and '.join(ways)} exclude each other")
        if self.distil is not None and not ways:
            raise ValueError("distil has no effect on a whole encoder")
        return self


class LanguageModel(_Part):
    """Which causal language model."""

    model: str
    revision: str | None = None


class ProjectorPart(_Part):
    """Which projector; ``start`` is a run whose trained one it begins with."""

    name: str = "concat-linear"
    settings: dict[str, Any] = Field(default_factory=dict)
    match_embeddings: bool = False
    start: str | None = None


class LoraPart(_Part):
    """Adapters on the language model."""

    r: Count = 16
    alpha: Annotated[float, Field(gt=0)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")


class DataPart(_Part):
    """What is heard; see `paretone.data.open_data`. ``text`` is the normaliser of what is to be written."""

    train: str
    dev: str | None = None
    language: str | None = None
    limit: Count | None = None
    dev_limit: Count | None = None
    skip_bad: bool = False
    text: Literal["slam", "none"] = "slam"


class Training(_Part):
    """How long and how fast.

    Either ``batch_s`` or ``batch``: seconds of audio, or utterances, that are heard at once.
    """

    epochs: Count = 2
    batch: Count | None = None
    batch_s: Annotated[float, Field(gt=0)] | None = None
    accumulate: Count = 1
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.05
    floor: Annotated[float, Field(ge=0, le=1)] = 0.1
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    gradient_checkpointing: bool = False
    patience: Count | None = None
    seed: Annotated[int, Field(ge=0)] = 42
    report_to: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_size(self) -> "Training":
        if self.batch is not None and self.batch_s is not None:
            raise ValueError("batch and batch_s exclude each other")
        return self


class Decoding(_Part):
    """How answers are written, for selection and test alike."""

    beams: Count = 2
    max_new_tokens: Count = 128


class Features(_Part):
    """Where encoder features are kept, and how much they may take."""

    cache: str
    gb: Annotated[float, Field(gt=0)] = 50.0


class SlamRecipe(_Part):
    """A speech LLM and how it is trained."""

    encoder: Encoder
    language_model: LanguageModel
    data: DataPart
    projector: ProjectorPart = ProjectorPart()
    lora: LoraPart | None = None
    prompt: str = PROMPT
    pad_to_30s: bool = False
    training: Training = Training()
    decoding: Decoding = Decoding()
    features: Features | None = None
    out: str | None = None


def read_slam_recipe(path: Path, changes: Mapping[str, Any] | None = None) -> SlamRecipe:
    """Reads a YAML recipe; ``changes`` are dotted keys and their values, as ``training.seed``.

    ``preset: harmonised-da`` (or -nl, -en) fills in what arXiv 2603.27981's follow-up trains with; own keys win.

    Raises:
        UserError: naming the file, the key and what is allowed there.
    """
    content = read_yaml(path, "recipe")
    if not isinstance(content, dict):
        raise UserError(f"recipe {path}: it must hold keys; there are {', '.join(SlamRecipe.model_fields)}")
    for key, value in (changes or {}).items():
        content = put(content, key, value)
    return checked_slam_recipe(content, f"recipe {path}")


def checked_slam_recipe(content: dict[str, Any], where: str) -> SlamRecipe:
    """A recipe from parsed YAML."""
    content = dict(content)
    preset = content.pop("preset", None)
    if preset is not None:
        content = _with_preset(content, str(preset), where)
    try:
        recipe = SlamRecipe.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error, SlamRecipe)}") from error
    if recipe.training.patience is not None and recipe.data.dev is None:
        raise UserError(f"{where}: training.patience has no effect without data.dev")
    if recipe.features is not None and recipe.encoder.distil is not None:
        raise UserError(f"{where}: features belong to an encoder as it is stored; encoder.distil changes it")
    return recipe


def _with_preset(content: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    known = [f"harmonised-{language}" for language in HARMONISED]
    if name not in known:
        raise UserError(f"{where}: preset {name!r} is none of {', '.join(known)}{did_you_mean(name, known)}")
    batch, epochs, epochs_lora, rank = HARMONISED[name.removeprefix("harmonised-")]
    has_lora = content.get("lora") is not None
    given = content.get("training") or {}
    training = {"epochs": epochs_lora if has_lora else epochs, **given}
    if "batch_s" not in given:
        training.setdefault("batch", batch)
    content["training"] = training
    if has_lora:
        content["lora"] = {
            "r": rank,
            "alpha": 2 * rank,
            **(content["lora"] if isinstance(content["lora"], dict) else {}),
        }
    return content
