"""A model with the weights of one layer in memory at a time: all inputs pass a layer before the next one is read."""

import copy
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from paretone.checkpoint import Checkpoint
from paretone.errors import UserError
from paretone.families import table_of
from paretone.model.loading import build_empty
from paretone.progress import track

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

RATE_HZ = 16_000
WHOLE_DECODER_BYTES = 1 << 30  # a decoder whose float32 weights take more is never in memory as a whole
_TIED = "proj_out.weight"

# torch's names for the parts of a weight-normed convolution, and those in checkpoints written before it had them
_WEIGHT_NORM = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}

Watch = Callable[[str, nn.Module, Sequence[int]], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class Streamed:
    """A model in evaluation mode whose weights are not there before they are read, and its processor."""

    checkpoint: Checkpoint
    model: "PreTrainedModel"
    processor: "ProcessorMixin"
    names: frozenset[str]

    @property
    def base(self) -> Any:
        """The model without its head."""
        return self.model.base_model

    @property
    def prefix(self) -> str:
        """What precedes the base model's names."""
        return "" if self.base is self.model else f"{self.model.base_model_prefix}."

    @property
    def extractor(self) -> Any:
        """What turns waves into inputs."""
        return getattr(self.processor, "feature_extractor", self.processor)

    @property
    def is_whisper(self) -> bool:
        """Whether there is a decoder."""
        return bool(self.model.config.model_type == "whisper")

    @property
    def writes(self) -> bool:
        """Whether there is a decoder with a head, small enough to be in memory as a whole."""
        if not self.is_whisper or not hasattr(self.model, "proj_out"):
            return False
        return 4 * sum(parameter.numel() for parameter in self.base.decoder.parameters()) <= WHOLE_DECODER_BYTES


def stream_model(checkpoint: Checkpoint) -> Streamed:
    """The model of ``checkpoint`` without its weights.

    WavLM's attentions become those of `modeling_paretone`: they compute the same, but call their projections one by
    one, so that what each reads can be seen.

    Raises:
        UserError: if the architecture is none of ours, the processor does not load, or it hears another rate.
    """
    extra = _open_attentions(checkpoint) if checkpoint.config.get("model_type") == "wavlm" else {}
    model, processor = build_empty(checkpoint.folder, checkpoint.config, extra)
    streamed = Streamed(checkpoint, model, processor, frozenset(model.state_dict()))
    if streamed.extractor.sampling_rate != RATE_HZ:
        rate_hz = streamed.extractor.sampling_rate
        raise UserError(f"{checkpoint.folder}: hears audio at {rate_hz} Hz; only {RATE_HZ} Hz is supported")
    return streamed


def _open_attentions(checkpoint: Checkpoint) -> dict[str, Any]:
    table = table_of(checkpoint.config, checkpoint.shapes, str(checkpoint.folder))
    widths = dict(checkpoint.config.get("layer_widths") or {})
    sources = dict(checkpoint.config.get("position_bias_heads") or {})
    for group in table.groups:
        name = group.name.removeprefix(table.prefix)
        if group.kind == "heads" and name not in widths:
            widths[name], sources[name] = group.width, list(range(group.width))
    return {"layer_widths": widths, "position_bias_heads": sources}


def run_streamed(streamed: Streamed, waves: Iterable[np.ndarray], watch: Watch) -> None:
    """Runs the model on each of ``waves`` alone, layer by layer, front to back; what heads it has are left out.

    Whisper's decoder reads what the model itself writes, greedily, from the prompt on. A decoder that is too large to
    be in memory as a whole, or has no head to write with, is not run.

    Args:
        waves: (samples,) each, float32, 16 kHz, no longer than the model's window.
        watch: called with each layer's full name, the layer, and the places that each clip has there. It is entered
            before the first clip passes and left after the last; what it gives is called with each clip's number.
    """
    base, prefix = streamed.base, streamed.prefix
    with tempfile.TemporaryDirectory(prefix="paretone-") as name, torch.no_grad():
        encoded = _States(Path(name), "encoder")
        decoder = f"{prefix}decoder."
        _read(streamed, lambda tensor: not tensor.startswith((f"{prefix}encoder.layers.", decoder, _TIED)))
        calls = [_listen(streamed, encoded, clip, wave) for clip, wave in enumerate(waves)]
        _pass(streamed, "encoder", calls, encoded, watch)
        if not streamed.writes:
            return
        clips = range(len(calls))
        for clip in clips:
            encoded[clip] = base.encoder.layer_norm(encoded[clip])
        _read(streamed, lambda tensor: tensor.startswith(decoder))
        streamed.model.tie_weights()
        tokens = [_write(streamed, encoded[clip]) for clip in track(clips, "writing", len(calls))]
        for layer in base.decoder.layers:
            layer.to("meta")
        decoded = _States(Path(name), "decoder")
        calls = [_read_back(streamed, decoded, clip, tokens[clip], encoded[clip]) for clip in clips]
        _pass(streamed, "decoder", calls, decoded, watch, encoded)


class _States:
    """Hidden states of every clip, (1, places, model) float32, on disk."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name

    def _path(self, clip: int) -> Path:
        return self._folder / f"{self._name}-{clip}.npy"

    def __getitem__(self, clip: int) -> Tensor:
        return torch.from_numpy(np.load(self._path(clip)))

    def __setitem__(self, clip: int, states: Tensor) -> None:
        np.save(self._path(clip), states.numpy())


def _read(streamed: Streamed, wants: Callable[[str], bool]) -> None:
    """Reads those tensors of the model whose names ``wants`` names, as float32."""
    stored = {name: _stored(name, streamed.checkpoint) for name in streamed.names if wants(name)}
    read = streamed.checkpoint.read([name for name in stored.values() if name is not None])
    state = {name: read[origin].float().clone() for name, origin in stored.items() if origin is not None}
    streamed.model.load_state_dict(state, strict=False, assign=True)


def _stored(name: str, checkpoint: Checkpoint) -> str | None:
    """The checkpoint's name of a tensor; None for what serves training alone."""
    old = [name.replace(new, was) for new, was in _WEIGHT_NORM.items() if name.endswith(new)]
    found = next((each for each in (name, *old) if each in checkpoint.entries), None)
    if found is None and not name.endswith("masked_spec_embed"):
        raise UserError(f"{checkpoint.folder} lacks the tensor {name!r}")
    return found


@dataclass(frozen=True)
class _Call:
    """How a stack calls its layers with states of so many places; ``_Memory`` stands for the encoder's states."""

    places: int
    args: tuple[Any, ...]
    options: Mapping[str, Any]


class _CaughtError(BaseException):
    """A call taken out of the model's own forward pass."""

    def __init__(self, states: Tensor, call: _Call) -> None:
        self.states, self.call = states, call


class _Catch(nn.Module):
    """Stands in for the layers of a stack."""

    def forward(self, hidden_states: Tensor, *args: Any, **options: Any) -> None:
        raise _CaughtError(hidden_states, _Call(hidden_states.shape[1], args, options))


class _Memory:
    """Stands for the encoder's states in a call."""


def _first_call(stack: Any, run: Callable[[], Any]) -> tuple[Tensor, _Call]:
    """The states that enter the layers of ``stack`` when ``run`` runs it, and how it calls them."""
    layers, stack.layers = stack.layers, nn.ModuleList([_Catch()])
    try:
        run()
    except _CaughtError as caught:
        return caught.states, caught.call
    finally:
        stack.layers = layers
    raise AssertionError("a stack without layers")


def _listen(streamed: Streamed, states: _States, clip: int, wave: np.ndarray) -> _Call:
    base, inputs = streamed.base, streamed.extractor(wave, sampling_rate=RATE_HZ, return_tensors="pt")

    def run() -> Any:
        return base.encoder(inputs.input_features) if streamed.is_whisper else base(inputs.input_values)

    states[clip], call = _first_call(base.encoder, run)
    return call


def _write(streamed: Streamed, memory: Tensor) -> Tensor:
    """(1, tokens) what the decoder reads while it writes greedily, the prompt first."""
    from transformers.modeling_outputs import BaseModelOutput

    model: Any = streamed.model
    settings = copy.deepcopy(model.generation_config)
    settings.num_beams, settings.do_sample, settings.return_timestamps = 1, False, False
    settings.max_new_tokens, settings.max_length = None, model.config.max_target_positions
    spoken = {"task": "transcribe"} if getattr(settings, "lang_to_id", None) else {}
    written: Tensor = model.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=memory),
        generation_config=settings,
        force_unique_generate_call=True,
        **spoken,
    )
    return written[:, : model.config.max_target_positions]


def _read_back(streamed: Streamed, states: _States, clip: int, tokens: Tensor, memory: Tensor) -> _Call:
    decoder = streamed.base.decoder

    def run() -> Any:
        return decoder(input_ids=tokens, encoder_hidden_states=memory, use_cache=False)

    states[clip], call = _first_call(decoder, run)
    args = tuple(_Memory if arg is memory else arg for arg in call.args)
    return _Call(call.places, args, {key: _Memory if arg is memory else arg for key, arg in call.options.items()})


def _pass(
    streamed: Streamed,
    side: str,
    calls: Sequence[_Call],
    states: _States,
    watch: Watch,
    memory: _States | None = None,
) -> None:
    """Takes all clips through all layers of a stack; ``states`` then holds what the last layer hands on."""
    layers = getattr(streamed.base, side).layers
    lengths = [call.places for call in calls]
    bias = None
    for number in track(range(len(layers)), f"listening, {side}", len(layers)):
        layer, name = layers[number], f"{streamed.prefix}{side}.layers.{number}"
        _read(streamed, lambda tensor, start=f"{name}.": tensor.startswith(start))  # type: ignore[misc]
        if number == 0 and "position_bias" in calls[0].options:
            bias = copy.deepcopy(layer.attention)  # it alone has the table that all layers' position bias comes from
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                delattr(bias, part)
        with watch(name, layer, lengths) as before:
            for clip, call in enumerate(calls):
                before(clip)
                heard = None if memory is None else memory[clip]
                states[clip] = _run(layer, states[clip], call, heard, bias)
        layer.to("meta")


def _run(layer: nn.Module, hidden: Tensor, call: _Call, memory: Tensor | None, bias: Any) -> Tensor:
    args = tuple(memory if arg is _Memory else arg for arg in call.args)
    options = {key: memory if arg is _Memory else arg for key, arg in call.options.items()}
    if bias is not None:
        options["position_bias"] = bias.compute_bias(hidden.shape[1], hidden.shape[1])
    made = layer(hidden, *args, **options)
    return made[0] if isinstance(made, tuple) else made
