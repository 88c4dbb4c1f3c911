"""LoRA on the language model: put in, saved, read back strictly, merged."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from paretone.checkpoint import read_tensors, write_tensors
from paretone.errors import UserError, did_you_mean
from paretone.model.loading import check_shapes

FOLDER, FILE = "adapter", "adapter_model.safetensors"


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters of arXiv 2106.09685; ``targets`` are the last parts of the names of linear layers."""

    r: int = 16
    alpha: int = 32
    dropout: float = 0.1
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")


def add_lora(language_model: Any, lora: Lora) -> None:
    """Puts fresh adapters into a language model and freezes everything else in it.

    Raises:
        UserError: if a target is no linear layer of the model, or a number is out of range.
    """
    from peft import LoraConfig

    _check(language_model, lora)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        task_type="CAUSAL_LM",
    )
    _inject(language_model, config)


def _inject(language_model: Any, config: Any) -> None:
    """Puts adapters in, in float32 whatever the model is in: in bfloat16 small updates would be rounded away."""
    from peft import inject_adapter_in_model

    inject_adapter_in_model(config, language_model)  # add_adapter of transformers does this and asks for newer versions
    for name, parameter in language_model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()


def _check(language_model: Any, lora: Lora) -> None:
    there = linear_names(language_model)
    for target in lora.targets:
        if target not in there:
            hint = did_you_mean(target, there)
            raise UserError(f"lora.targets: no linear layer is called {target!r}; there are {', '.join(there)}{hint}")
    if not lora.targets or lora.r < 1 or lora.alpha <= 0 or not 0 <= lora.dropout < 1:
        raise UserError(f"lora: r 1 or more, alpha above 0, dropout 0 to below 1, targets not empty; given {lora}")


def linear_names(language_model: Any) -> list[str]:
    """The last parts of the names of all linear layers but the head."""
    head = language_model.get_output_embeddings()
    found = {
        name.rpartition(".")[2]
        for name, module in language_model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    return sorted(found)


def save_lora(language_model: Any, folder: Path) -> None:
    """Writes the adapters as peft does, readable by ``PeftModel.from_pretrained``."""
    from peft import get_peft_model_state_dict

    folder.mkdir()
    config = language_model.peft_config["default"]
    config.inference_mode = True
    config.save_pretrained(str(folder))
    config.inference_mode = False
    _sort_sets(folder / "adapter_config.json")
    state = {
        f"base_model.model.{name}": tensor.detach().cpu().contiguous()
        for name, tensor in get_peft_model_state_dict(language_model).items()
    }
    write_tensors(folder / FILE, state)


def _sort_sets(file: Path) -> None:
    """peft writes a set of names in an order that is another one in each process; equal runs have equal bytes."""
    told = json.loads(file.read_text(encoding="utf-8"))
    told["target_modules"] = sorted(told["target_modules"])
    file.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_lora(language_model: Any, folder: Path) -> None:
    """Puts saved adapters into a language model.

    Raises:
        UserError: if they were made for another model: one is missing, left over or of another shape.
    """
    from peft import PeftConfig

    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder}: the adapter's configuration is missing or damaged ({error})") from error
    targets = tuple(config.target_modules)
    _check(language_model, Lora(config.r, config.lora_alpha, config.lora_dropout, targets))
    _inject(language_model, config)
    put_lora(language_model, folder)


def put_lora(language_model: Any, folder: Path) -> None:
    """Puts the tensors of saved adapters into those of a language model, which has some.

    Raises:
        UserError: if one is missing, left over or of another shape.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    stored = read_tensors(folder / FILE)
    stored = {name.removeprefix("base_model.model."): tensor for name, tensor in stored.items()}
    check_shapes(
        f"{folder}: the adapter does not fit the language model", get_peft_model_state_dict(language_model), stored
    )
    set_peft_model_state_dict(language_model, stored)


def merge_lora(language_model: Any) -> None:
    """Adds the adapters into the weights and takes them out."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    wrapped = [(name, each) for name, each in language_model.named_modules() if isinstance(each, BaseTunerLayer)]
    for name, layer in wrapped:
        layer.merge(safe_merge=True)
        parent, _, last = name.rpartition(".")
        setattr(language_model.get_submodule(parent), last, layer.get_base_layer())
    if wrapped:
        del language_model.peft_config


def has_lora(language_model: Any) -> bool:
    """Whether there are adapters in it."""
    return hasattr(language_model, "peft_config")
