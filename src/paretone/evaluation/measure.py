"""What a model costs: parameters, multiplications, memory; and the machine that it was measured on."""

import hashlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from paretone.data import RATE_HZ
from paretone.families import SLAM
from paretone.results.schema import Machine

CTC_SECONDS = 10
WHISPER_TOKENS = 50
_PATHS = ("_name_or_path", "audio_source", "text_source")  # where a model came from
_MACS: dict[str, int] = {}


def count_parameters(model: Any) -> int:
    """Parameters in use; tied ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def reference_input(model: Any) -> tuple[str, dict[str, torch.Tensor]]:
    """What `count_macs` runs, in words and as tensors without content.

    CTC: 10 s of audio. Whisper: one window, and a decoder pass over 50 tokens (fewer where the decoder has fewer
    positions). A speech LLM: what its encoder would get, and 50 tokens.
    """
    config = model.config
    if config.model_type == SLAM:
        said, inputs = reference_input(model.audio_tower)
        inputs.pop("decoder_input_ids", None)
        labels = torch.zeros(1, WHISPER_TOKENS, device="meta", dtype=torch.long)
        return f"{said.partition(' and ')[0]} and {WHISPER_TOKENS} tokens", {**inputs, "labels": labels}
    if config.model_type != "whisper":
        samples = torch.empty(1, CTC_SECONDS * RATE_HZ, device="meta", dtype=model.dtype)
        return f"{CTC_SECONDS} s of audio", {"input_values": samples}
    tokens = min(WHISPER_TOKENS, config.max_target_positions)
    frames = 2 * config.max_source_positions  # the second convolution halves them
    return f"one window of {frames} mel frames and {tokens} tokens", {
        "input_features": torch.empty(1, config.num_mel_bins, frames, device="meta", dtype=model.dtype),
        "decoder_input_ids": torch.zeros(1, tokens, device="meta", dtype=torch.long),
    }


def count_macs(model: Any) -> int:
    """Multiply-accumulates of convolutions and matrix products for the reference input.

    Models of one shape are counted once in a process: a study measures many.
    """
    shape = _shape(model)
    if shape not in _MACS:
        _MACS[shape] = _counted(model)
    return _MACS[shape]


def _shape(model: Any) -> str:
    """A digest of all that multiplications depend on: modules, tensors' shapes, and the configuration but for paths."""
    parts = [f"{name} {type(module).__qualname__}" for name, module in model.named_modules()]
    parts += [f"{n} {tuple(t.shape)}" for n, t in (*model.named_parameters(), *model.named_buffers())]
    config = json.dumps(_without_paths(model.config.to_dict()), sort_keys=True, default=str)
    return hashlib.sha256("\n".join([config, *parts]).encode()).hexdigest()


def _without_paths(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_paths(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _PATHS
    }


def _counted(model: Any) -> int:
    """The real forward pass runs on tensors without content, so no memory is spent.

    There attention is always two batched products, which the counter knows; the fused kernel for CPUs it does not.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):  # tells masks that their values can't be looked at
        weights = {
            name: torch.empty_like(tensor, device="meta")
            for name, tensor in (*model.named_parameters(), *model.named_buffers())
        }
        _, inputs = reference_input(model)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            torch.func.functional_call(model, weights, (), inputs)
    return int(counter.get_total_flops()) // 2


def accelerator(device: torch.device) -> str | None:
    """The name of a GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def machine() -> Machine:
    """This machine and the versions that decide about speed and results."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        python=platform.python_version(),
        torch=torch.__version__,
        transformers=version("transformers"),
    )


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
