"""A model and its processor from a folder, or an error that says why not."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paretone.errors import UserError, did_you_mean
from paretone.families import SLAM
from paretone.model.registration import STOCK, register

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, ProcessorMixin

    from paretone.checkpoint import Checkpoint

ATTENTION = ("eager", "sdpa", "flash_attention_2", "flex_attention")
DTYPES = ("float32", "float16", "bfloat16")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt")
EXTRACTOR_FILES = ("preprocessor_config.json", "processor_config.json")


def load(
    model: str | Path,
    *,
    revision: str | None = None,
    device: "str | torch.device" = "cpu",
    dtype: "str | torch.dtype | None" = None,
    attn_implementation: str | None = None,
) -> "tuple[PreTrainedModel, ProcessorMixin]":
    """The model in evaluation mode, and its processor; compressed or not.

    The class follows from ``architectures`` in config.json. A model without tokenizer files comes with its feature
    extractor in the processor's place.

    Args:
        model: local folder, hub id or embedded name.
        dtype: one of ``DTYPES``; the stored one where not given.
        attn_implementation: one of ``ATTENTION``; transformers' choice where not given.

    Raises:
        UserError: if any tensor is missing, left over or of another shape, if a file is missing or damaged, or if the
            architecture is none of ours.
    """
    from paretone.checkpoint import locate, open_checkpoint

    folder = locate(str(model), revision)
    config = open_checkpoint(folder).config  # finds damaged and missing shards, too
    if config.get("model_type") == SLAM:
        from paretone.model.slam.assembly import load_slam

        _check_options(SLAM, dtype, attn_implementation)
        loaded: tuple[PreTrainedModel, ProcessorMixin] = load_slam(
            folder, device=_device(device), dtype=dtype, attention=attn_implementation
        )
        return loaded
    auto_class, base_class = _classes(folder, config)
    _check_options(config["model_type"], dtype, attn_implementation)
    loaded_model = load_strictly(
        folder, auto_class, base_class, device=device, dtype=dtype, attn_implementation=attn_implementation
    )
    return loaded_model, load_processor(folder)


def weight_files(checkpoint: "Checkpoint") -> list[Path]:
    """All files that hold weights of a model, those that a speech LLM's run refers to included."""
    files = list(checkpoint.weight_files)
    if checkpoint.config.get("model_type") == SLAM:
        from paretone.model.slam.assembly import referenced

        files += [*(checkpoint.folder / "adapter").glob("*.safetensors"), *referenced(checkpoint.folder)]
    return files


def build_empty(
    folder: Path, config: Mapping[str, Any], extra: Mapping[str, Any]
) -> "tuple[PreTrainedModel, ProcessorMixin]":
    """The model in ``folder`` in evaluation mode and without weights (on the meta device), and its processor.

    Args:
        extra: fields that its configuration gets.
    """
    import torch
    import transformers

    register()
    auto_class, _ = _classes(folder, config)
    with _quiet():
        try:
            made = transformers.AutoConfig.from_pretrained(folder)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{folder / 'config.json'}: {_one_line(error)}") from error
        for name, value in extra.items():
            setattr(made, name, value)
        with torch.device("meta"):
            model = getattr(transformers, auto_class).from_config(made)
        if (folder / "generation_config.json").exists():
            model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    return model.eval(), load_processor(folder)


def _classes(folder: Path, config: Mapping[str, Any]) -> tuple[str, str]:
    """The auto class and the stock class that the weights belong to."""
    model_type = config.get("model_type")
    if model_type not in STOCK:
        raise UserError(
            f"{folder / 'config.json'}: model_type {model_type!r} is not supported. Supported: {', '.join(STOCK)}"
        )
    stock = STOCK[model_type][1]
    given = [str(name).removeprefix("Mixed") for name in config.get("architectures") or []]
    for auto_class, name in stock.items():
        if given == [name]:
            return auto_class, name
    raise UserError(
        f"{folder / 'config.json'}: architectures {config.get('architectures')} is not supported for "
        f"{model_type}. Supported: {', '.join(stock.values())}"
    )


def _check_options(model_type: str, dtype: "str | torch.dtype | None", attention: str | None) -> None:
    name = None if dtype is None else str(dtype).removeprefix("torch.")
    if name is not None and name not in DTYPES:
        raise UserError(f"dtype {name!r} is none of {', '.join(DTYPES)}{did_you_mean(name, DTYPES)}")
    if attention is not None and attention not in ATTENTION:
        hint = did_you_mean(attention, ATTENTION)
        raise UserError(f"attn_implementation {attention!r} is none of {', '.join(ATTENTION)}{hint}")
    if model_type == "wavlm" and attention not in (None, "eager"):
        raise UserError(
            f"attn_implementation {attention!r}: WavLM has one attention only; leave it out or give 'eager'"
        )


def load_strictly(
    folder: Path,
    auto_class: str,
    base_class: str,
    *,
    device: "str | torch.device" = "cpu",
    dtype: "str | torch.dtype | None" = None,
    attn_implementation: str | None = None,
) -> "PreTrainedModel":
    """What ``auto_class.from_pretrained`` gives, if it is all there.

    Raises:
        UserError: if any tensor is missing, left over or of another shape.
    """
    import transformers

    from paretone.model.modeling_paretone import WidthError

    register()
    options: dict[str, Any] = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    if dtype is not None:
        options["dtype"] = dtype
    with _quiet():
        try:
            config = transformers.AutoConfig.from_pretrained(folder)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{folder / 'config.json'}: {_one_line(error)}") from error
        try:
            # Mismatched shapes are allowed here and refused below, where they can be named.
            model, info = getattr(transformers, auto_class).from_pretrained(
                folder,
                config=config,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
            )
        except WidthError as error:
            raise UserError(f"{folder / 'config.json'}: {_one_line(error)}") from error
    _refuse_differences(folder, base_class, info)
    return model.to(_device(device))


def _refuse_differences(folder: Path, base_class: str, info: dict[str, Any]) -> None:
    """The only tensor that may be absent or left over is ``masked_spec_embed``: it serves training alone."""
    mismatched = [f"{name} {tuple(stored)}, needed {tuple(needed)}" for name, stored, needed in info["mismatched_keys"]]
    problems = {
        "missing": [name for name in info["missing_keys"] if not name.endswith("masked_spec_embed")],
        "not part of it": [name for name in info["unexpected_keys"] if not name.endswith("masked_spec_embed")],
        "of another shape": mismatched,
    }
    found = [f"{what}: {_some(names)}" for what, names in problems.items() if names]
    found += [_one_line(message) for message in info.get("error_msgs") or []]
    if found:
        raise UserError(f"{folder}: the tensors are not those of its {base_class}. {'; '.join(found)}")


def check_shapes(complaint: str, needed: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raises UserError, which begins with ``complaint``, unless both hold the same names with the same ``shape``."""
    wanted, found = ({name: tuple(each.shape) for name, each in side.items()} for side in (needed, given))
    differing = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if differing:
        raise UserError(
            f"{complaint}: {len(differing)} tensors are missing, left over or of another shape, the first "
            f"{differing[0]!r}"
        )


def load_processor(folder: Path) -> "ProcessorMixin":
    """Feature extractor and, where there is one, tokenizer.

    Raises:
        UserError: if their files are missing or damaged.
    """
    import transformers

    if not any((folder / name).exists() for name in EXTRACTOR_FILES):
        raise UserError(
            f"{folder} has neither {' nor '.join(EXTRACTOR_FILES)}; copy the processor's files from the source model"
        )
    has_tokenizer = any((folder / name).exists() for name in TOKENIZER_FILES)
    loader = transformers.AutoProcessor if has_tokenizer else transformers.AutoFeatureExtractor
    with _quiet():
        try:
            return loader.from_pretrained(folder)
        except (OSError, ValueError, TypeError, ImportError) as error:
            raise UserError(
                f"{folder}: its tokenizer or feature extractor does not load: {_one_line(error)}"
            ) from error


def chosen_device(asked: str) -> str:
    """What was asked for; of "auto" a GPU where there is one, else the CPU."""
    import torch

    if asked != "auto":
        return asked
    return "cuda" if torch.cuda.is_available() else "cpu"


def _device(device: "str | torch.device") -> "torch.device":
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise UserError(f"device {str(device)!r} is not usable here: {_one_line(error)}") from error
    return torch.device(device)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Holds back the reports of transformers: what they would say is raised as an error."""
    from transformers.utils import logging

    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


def _one_line(error: Exception | str) -> str:
    return " ".join(str(error).split())[:300]
