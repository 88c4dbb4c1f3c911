"""Makes the auto classes of transformers load mixed widths."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import wrapt

AUTO_CLASSES = "transformers.models.auto.modeling_auto"
REMOTE_CODE = Path(__file__).with_name("modeling_paretone.py")

# model type: (configuration class, stock class of each auto class)
STOCK = {
    "hubert": ("HubertConfig", {"AutoModel": "HubertModel", "AutoModelForCTC": "HubertForCTC"}),
    "wav2vec2": ("Wav2Vec2Config", {"AutoModel": "Wav2Vec2Model", "AutoModelForCTC": "Wav2Vec2ForCTC"}),
    "wavlm": ("WavLMConfig", {"AutoModel": "WavLMModel", "AutoModelForCTC": "WavLMForCTC"}),
    "whisper": (
        "WhisperConfig",
        {"AutoModel": "WhisperModel", "AutoModelForSpeechSeq2Seq": "WhisperForConditionalGeneration"},
    ),
}


def auto_map_for(model_type: str) -> dict[str, str]:
    """The ``auto_map`` that config.json needs beside a copy of ``REMOTE_CODE``, for a model type in ``STOCK``."""
    _, stock = STOCK[model_type]
    return {auto: f"{REMOTE_CODE.stem}.Mixed{name}" for auto, name in stock.items()}


def register() -> None:
    """Registers mixed classes and speech LLMs with the auto classes; imports torch and transformers."""
    modeling = importlib.import_module("paretone.model.modeling_paretone")
    auto = importlib.import_module(AUTO_CLASSES)
    for model_type, (config_name, stock) in STOCK.items():
        config_class = getattr(importlib.import_module(_configuration(model_type)), config_name)
        for auto_class, name in stock.items():
            _register(auto, auto_class, config_class, getattr(modeling, f"Mixed{name}"))
    importlib.import_module("paretone.model.slam.assembly").register_slam()


def register_when_transformers_is_imported() -> None:
    """As ``register``, at once or as soon as the auto classes exist, and without importing anything heavy itself."""
    for module in (AUTO_CLASSES, *map(_configuration, STOCK)):
        wrapt.register_post_import_hook(_register_what_is_ready, module)


def _configuration(model_type: str) -> str:
    return f"transformers.models.{model_type}.configuration_{model_type}"


def _register(auto: ModuleType, auto_class: str, config_class: type, model_class: type) -> None:
    getattr(auto, auto_class).register(config_class, model_class, exist_ok=True)


def _register_what_is_ready(loaded: ModuleType) -> None:
    """Registers stand-ins for the model types whose configuration is there, once the auto classes are.

    Nothing may be imported here: a configuration imports the auto classes while it is half there itself, and the auto
    classes are often imported from a half-imported modeling module.
    """
    auto = sys.modules.get(AUTO_CLASSES)
    for model_type, (config_name, stock) in STOCK.items():
        config_class = getattr(sys.modules.get(_configuration(model_type)), config_name, None)
        for auto_class, name in stock.items():
            if auto is not None and config_class is not None and hasattr(auto, auto_class):
                _register(auto, auto_class, config_class, _stand_in(f"Mixed{name}"))


def _stand_in(name: str) -> type:
    """A class with the two constructors that auto classes call; the first call imports and registers the real ones."""

    def real_class() -> Any:
        register()
        return getattr(importlib.import_module("paretone.model.modeling_paretone"), name)

    def from_pretrained(*args: Any, **kwargs: Any) -> Any:
        return real_class().from_pretrained(*args, **kwargs)

    def from_config(*args: Any, **kwargs: Any) -> Any:
        return real_class()._from_config(*args, **kwargs)

    return type(
        name,
        (),
        {
            "__module__": "paretone.model.modeling_paretone",
            "from_pretrained": staticmethod(from_pretrained),
            "_from_config": staticmethod(from_config),
        },
    )
