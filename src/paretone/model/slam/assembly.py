"""A speech LLM from its parts, and to and from folders.

A run's folder holds the projector, the adapter and a configuration that says where the frozen parts lie; a merged
folder holds everything.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from paretone.checkpoint import Checkpoint, Entry, TensorWriter, locate, open_checkpoint, read_tensors
from paretone.errors import UserError
from paretone.families import SLAM
from paretone.model.loading import check_shapes
from paretone.model.slam.adapters import FOLDER as ADAPTER
from paretone.model.slam.adapters import Lora, add_lora, has_lora, load_lora, merge_lora, put_lora, save_lora
from paretone.model.slam.configuration import PROMPT, SlamAsrConfig
from paretone.model.slam.encoders import FAMILIES, cut_tower, layers_of, make_tower
from paretone.model.slam.modeling import SlamAsrForConditionalGeneration
from paretone.model.slam.processing import SlamAsrFeatureExtractor, SlamAsrProcessor

Parts = tuple[Any, SlamAsrProcessor]
_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def register_slam() -> None:
    """Makes the auto classes of transformers and its pipeline know the model."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES

    made = SlamAsrForConditionalGeneration
    transformers.AutoConfig.register(SLAM, SlamAsrConfig, exist_ok=True)
    transformers.AutoModelForSpeechSeq2Seq.register(SlamAsrConfig, made, exist_ok=True)
    transformers.AutoProcessor.register(SlamAsrConfig, SlamAsrProcessor, exist_ok=True)
    transformers.AutoFeatureExtractor.register(SlamAsrConfig, SlamAsrFeatureExtractor, exist_ok=True)
    # the pipeline asks this table, and no other, whether a class writes text or CTC labels
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES[SLAM] = made.__name__


def new_slam(
    encoder: str,
    language_model: str,
    *,
    encoder_revision: str | None = None,
    language_model_revision: str | None = None,
    layers: Sequence[int] | None = None,
    projector: str = "concat-linear",
    projector_settings: Mapping[str, Any] | None = None,
    match_embeddings: bool = False,
    lora: Lora | None = None,
    prompt: str = PROMPT,
    pad_to_window: bool = False,
    max_new_tokens: int = 128,
    num_beams: int = 1,
    dtype: str | None = None,
) -> Parts:
    """A model with a fresh projector (and adapters) around frozen parts, and its processor.

    Args:
        encoder: Whisper, HuBERT, wav2vec2 or WavLM; compressed or not; ``language_model`` any causal one.
        layers: which of the encoder's layers are kept, all where not given.
        match_embeddings: start the projector's norm at the size of the language model's embeddings and not at 1.
        pad_to_window: see `SlamAsrFeatureExtractor`.
        dtype: of the frozen parts; the stored one where not given. What is trained is float32.

    Raises:
        UserError: if a part can't be used.
    """
    register_slam()
    tower, front, audio_source = _tower(encoder, encoder_revision, layers, dtype)
    lm, tokenizer, text_source = _language_model(language_model, language_model_revision, dtype)
    prompt_ids = tokenizer(prompt, add_special_tokens=False).input_ids
    if not prompt_ids:
        raise UserError(f"prompt {prompt!r} is no token; give some words")
    config = SlamAsrConfig(
        audio_config=tower.config,
        text_config=lm.config,
        audio_source=audio_source,
        text_source=text_source,
        projector=projector,
        projector_settings=dict(projector_settings or {}),
        prompt=prompt,
        prompt_ids=prompt_ids,
    )
    model = _built(config, tower, lm)
    if match_embeddings:
        with torch.no_grad():
            model.projector.norm.weight.fill_(float(lm.get_input_embeddings().weight.float().std()))
    if lora is not None:
        add_lora(lm, lora)
    settings = model.generation_config
    settings.eos_token_id, settings.pad_token_id = tokenizer.eos_token_id, _pad_id(tokenizer)
    settings.bos_token_id = None
    settings.max_new_tokens, settings.num_beams, settings.do_sample = max_new_tokens, num_beams, False
    return model.eval(), SlamAsrProcessor(audio_extractor(front, pad_to_window), tokenizer)


def _built(config: SlamAsrConfig, tower: Any, language_model: Any) -> Any:
    model = SlamAsrForConditionalGeneration(config, audio_tower=tower, language_model=language_model)
    model.projector.float()
    for part in (model.audio_tower, model.language_model):
        part.requires_grad_(False)
    return model


def _tower(name: str, revision: str | None, layers: Sequence[int] | None, dtype: str | None) -> tuple[Any, Any, dict]:
    from paretone.model.loading import load

    checkpoint = _speech_config(name, revision)
    whole, processor = load(checkpoint.folder, dtype=dtype)
    base: Any = whole.base_model
    there = len(layers_of(base.encoder if base.config.model_type == "whisper" else base))
    kept = list(range(there)) if layers is None else list(layers)
    if not kept or sorted(set(kept)) != kept or not 0 <= kept[0] <= kept[-1] < there:
        raise UserError(
            f"encoder {name}: keep 1 to {there} different layers of 0 to {there - 1}, in order; given {kept}"
        )
    source = _source(name, revision, checkpoint) | {"layers": kept, "of": there}
    return cut_tower(base, kept), processor, source


def stored_depth(name: str, revision: str | None) -> int:
    """How many layers an encoder has.

    Raises:
        UserError: if there is none of that name.
    """
    config = _speech_config(name, revision).config
    return int(config["encoder_layers" if config["model_type"] == "whisper" else "num_hidden_layers"])


def whole_tower(name: str, revision: str | None) -> Any:
    """An encoder with all its layers, in float32."""
    tower, _, _ = _tower(name, revision, None, "float32")
    return tower


def _speech_config(name: str, revision: str | None) -> Checkpoint:
    checkpoint = open_checkpoint(locate(name, revision))
    kind = checkpoint.config.get("model_type")
    if kind not in FAMILIES:
        raise UserError(f"encoder {name}: model_type {kind!r} is no speech encoder; give one of {', '.join(FAMILIES)}")
    return checkpoint


def _source(name: str, revision: str | None, checkpoint: Checkpoint) -> dict[str, Any]:
    where = str(Path(name).resolve()) if Path(name).is_dir() else name
    return {"model": where, "revision": revision, "digest": checkpoint.digest()}


def _language_model(name: str, revision: str | None, dtype: str | None) -> tuple[Any, Any, dict]:
    import transformers

    from paretone.model.loading import load_strictly

    checkpoint = open_checkpoint(locate(name, revision))
    kind = str((checkpoint.config.get("architectures") or [""])[0])
    if not kind.endswith("ForCausalLM"):
        raise UserError(f"language model {name}: architecture {kind!r} is no causal language model (…ForCausalLM)")
    model = load_strictly(checkpoint.folder, "AutoModelForCausalLM", kind, dtype=dtype)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.folder)
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise UserError(f"language model {name}: its tokenizer does not load: {error}") from error
    if tokenizer.eos_token_id is None:
        raise UserError(f"language model {name}: its tokenizer has no end token, so answers would never end")
    return model, tokenizer, _source(name, revision, checkpoint)


def _pad_id(tokenizer: Any) -> int:
    """Padding is masked everywhere, so the end token serves where there is none."""
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def audio_extractor(processor: Any, pad_to_window: bool) -> Any:
    """The feature extractor of an encoder's processor; Whisper's as `SlamAsrFeatureExtractor`."""
    extractor = getattr(processor, "feature_extractor", processor)
    if not hasattr(extractor, "n_samples"):
        return extractor
    settings = {k: v for k, v in extractor.to_dict().items() if k not in ("feature_extractor_type", "processor_class")}
    return SlamAsrFeatureExtractor(**{**settings, "pad_to_window": pad_to_window})


def own_tensors(model: Any) -> dict[str, torch.Tensor]:
    """The tensors that a run's folder holds: the projector's, and those of parts that are not referenced."""
    parts = ["projector"]
    parts += ["audio_tower"] * (model.config.audio_source is None)
    parts += ["language_model"] * (model.config.text_source is None)
    return {name: tensor for name, tensor in model.state_dict().items() if name.split(".")[0] in parts}


def save_slam(model: Any, processor: SlamAsrProcessor, folder: Path) -> None:
    """Writes a run: configuration, own tensors, adapter, processor. ``folder`` exists and is empty."""
    save_parts(model, folder)
    processor.save_pretrained(folder)


def save_parts(model: Any, folder: Path) -> None:
    """The same without the processor."""
    save_weights(model, folder)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)


def save_weights(model: Any, folder: Path) -> None:
    """The tensors and the adapter alone."""
    tensors = own_tensors(model)
    layout = {name: Entry("", _DTYPES[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items()}
    with TensorWriter(folder, layout) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor.detach().cpu())
    if has_lora(model.language_model):
        save_lora(model.language_model, folder / ADAPTER)


def put_weights(model: Any, folder: Path) -> None:
    """Puts the tensors and the adapter that `save_weights` wrote back into the model that they are of."""
    _fill(model, read_tensors(folder / "model.safetensors"))
    if has_lora(model.language_model):
        put_lora(model.language_model, folder / ADAPTER)


def start_projector(model: Any, run: str) -> None:
    """Puts the projector of an earlier run into a model, as a warm start.

    Raises:
        UserError: if it has another shape.
    """
    checkpoint = open_checkpoint(locate(run))
    entries = {name: entry for name, entry in checkpoint.entries.items() if name.startswith("projector.")}
    own = {name: tensor for name, tensor in own_tensors(model).items() if name.startswith("projector.")}
    _put(model, Checkpoint(checkpoint.folder, checkpoint.config, entries), own)


def load_slam(
    folder: Path, *, device: "str | torch.device" = "cpu", dtype: Any = None, attention: str | None = None
) -> Parts:
    """The model in a run's folder or a merged one, in evaluation mode, and its processor.

    Raises:
        UserError: if a part is not where it was, is another one now, or the tensors are not the model's.
    """
    from paretone.model.loading import load_processor, load_strictly

    register_slam()
    checkpoint = open_checkpoint(folder)
    config = SlamAsrConfig.from_pretrained(folder)
    if config.audio_source is None and config.text_source is None:
        model: Any = load_strictly(
            folder, "AutoModelForSpeechSeq2Seq", SlamAsrForConditionalGeneration.__name__, dtype=dtype
        )
    else:
        model = _assembled(checkpoint, config, dtype)
    if attention is not None:
        model.audio_tower.set_attn_implementation(attention)
        model.language_model.set_attn_implementation(attention)
    processor: Any = load_processor(folder)
    _warn_of_prompt(config, processor, folder)
    return model.to(device).eval(), processor


def _assembled(checkpoint: Checkpoint, config: SlamAsrConfig, dtype: str | None) -> Any:
    from transformers import GenerationConfig

    audio, text = config.audio_source, config.text_source
    if text is None:
        raise UserError(f"{checkpoint.folder / 'config.json'}: it refers to an encoder but to no language model")
    if audio is None:
        tower = make_tower(config.audio_config)  # taught by the whole one, so it is the run's own
    else:
        tower, _, found = _tower(audio["model"], audio["revision"], audio["layers"], dtype)
        _check_same(checkpoint, "encoder", audio, found)
    lm, _, found = _language_model(text["model"], text["revision"], dtype)
    _check_same(checkpoint, "language model", text, found)
    model = _built(config, tower, lm)
    _put(model, checkpoint, own_tensors(model))
    if (checkpoint.folder / ADAPTER).is_dir():
        load_lora(lm, checkpoint.folder / ADAPTER)
    model.generation_config = GenerationConfig.from_pretrained(checkpoint.folder)
    return model


def _check_same(checkpoint: Checkpoint, what: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    if wanted["digest"] != found["digest"]:
        raise UserError(
            f"{checkpoint.folder}: the {what} {wanted['model']} is not the one it was trained with "
            f"({found['digest'][:15]}…, trained with {wanted['digest'][:15]}…); restore it"
        )


def _put(model: Any, checkpoint: Checkpoint, own: Mapping[str, torch.Tensor]) -> None:
    """Fills the model's tensors ``own`` from a folder that must hold these and no others."""
    check_shapes(f"{checkpoint.folder}: the tensors are not those of its own parts", own, checkpoint.entries)
    _fill(model, checkpoint.read(checkpoint.entries))


def _fill(model: Any, state: Mapping[str, torch.Tensor]) -> None:
    """Puts some of a model's tensors into it; every one of them must be its own."""
    own = model.state_dict()
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)


def _warn_of_prompt(config: SlamAsrConfig, processor: Any, folder: Path) -> None:
    """The stored tokens are what counts; a tokenizer that was exchanged gives itself away here."""
    import warnings

    if processor.tokenizer(config.prompt, add_special_tokens=False).input_ids != config.prompt_ids:
        warnings.warn(f"{folder}: its tokenizer reads the prompt otherwise than in training", stacklevel=2)


def merge_slam(folder: Path, out: Path) -> None:
    """Writes the model of a run into the existing folder ``out`` as one checkpoint that refers to nothing."""
    model, processor = load_slam(folder)
    merge_lora(model.language_model)
    model.config.audio_source = model.config.text_source = None
    model.projector.to(next(model.language_model.parameters()).dtype)
    register_slam()
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(out)
    processor.save_pretrained(out)


def referenced(folder: Path) -> list[Path]:
    """The weight files of frozen parts that a run refers to."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    sources = [config.get("audio_source"), config.get("text_source")]
    found: list[Path] = []
    for source in filter(None, sources):
        found += open_checkpoint(locate(source["model"], source["revision"])).weight_files
    return found
