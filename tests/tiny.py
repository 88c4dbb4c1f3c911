"""Tiny random models with every kind of weight a family has, for any test that needs a real checkpoint.

Hidden size 32, 4 heads of 8, 3 layers (Whisper: 3 + 3), 64 FFN units. Weights are larger than at a usual start and
no bias, norm or gate is at its neutral value, so that a forgotten or misplaced tensor changes the logits.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    GenerationConfig,
    HubertConfig,
    HubertForCTC,
    HubertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    Wav2Vec2Processor,
    WavLMConfig,
    WavLMForCTC,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperModel,
    WhisperProcessor,
    WhisperTokenizer,
)

RATE_HZ = 16_000
HEADS = 4
LAYERS = 3
FFN = 64
HIDDEN = 32
CHARACTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz", "'"]
WHISPER_SPECIALS = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startofprev|>",
    "<|nocaptions|>",
    "<|notimestamps|>",
]


NUMBERS = ["nul", "en", "to", "tre", "fire", "fem"]


def tiny_hubert(
    *, pre_norm: bool = True, layer_norm: bool = True, ctc: bool = True, seed: int = 0, **changes: Any
) -> PreTrainedModel:
    """A HuBERT that maps 320 samples to a frame; ``changes`` are config fields."""
    config = HubertConfig(**{**_waveform_fields(pre_norm, layer_norm), **changes})
    return _random(HubertForCTC if ctc else HubertModel, config, seed)


def tiny_wav2vec2(
    *, pre_norm: bool = True, layer_norm: bool = True, ctc: bool = True, seed: int = 0, **changes: Any
) -> PreTrainedModel:
    """As ``tiny_hubert``, a wav2vec 2.0."""
    config = Wav2Vec2Config(**{**_waveform_fields(pre_norm, layer_norm), **changes})
    return _random(Wav2Vec2ForCTC if ctc else Wav2Vec2Model, config, seed)


def tiny_wavlm(
    *, pre_norm: bool = True, layer_norm: bool = True, ctc: bool = True, seed: int = 0, **changes: Any
) -> PreTrainedModel:
    """As ``tiny_hubert``, a WavLM with gates that differ from head to head."""
    buckets = {"num_buckets": 32, "max_bucket_distance": 40}
    config = WavLMConfig(**{**_waveform_fields(pre_norm, layer_norm), **buckets, **changes})
    return _random(WavLMForCTC if ctc else WavLMModel, config, seed)


def tiny_whisper(*, ctc: bool = True, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """An English-only Whisper that hears 2 s; ``ctc=False`` gives the base model without ``proj_out``."""
    token = {text: 256 + index for index, text in enumerate(WHISPER_SPECIALS)}
    shared = {
        "decoder_start_token_id": token["<|startoftranscript|>"],
        "bos_token_id": token["<|endoftext|>"],
        "eos_token_id": token["<|endoftext|>"],
        "pad_token_id": token["<|endoftext|>"],
    }
    fields: dict[str, Any] = {
        "vocab_size": 256 + len(WHISPER_SPECIALS),
        "num_mel_bins": 16,
        "d_model": HIDDEN,
        "encoder_layers": LAYERS,
        "decoder_layers": LAYERS,
        "encoder_attention_heads": HEADS,
        "decoder_attention_heads": HEADS,
        "encoder_ffn_dim": FFN,
        "decoder_ffn_dim": FFN,
        "max_source_positions": 100,
        "max_target_positions": 24,
        "init_std": 0.2,
        "suppress_tokens": None,
        "begin_suppress_tokens": None,
    }
    config = WhisperConfig(**{**shared, **fields, **changes})
    model = _random(WhisperForConditionalGeneration if ctc else WhisperModel, config, seed)
    if ctc:
        model.generation_config = GenerationConfig(
            **shared,
            max_length=20,
            is_multilingual=False,
            no_timestamps_token_id=token["<|notimestamps|>"],
            return_timestamps=False,
            alignment_heads=[[1, 0], [2, 3]],
        )
    return model


TINY = {"hubert": tiny_hubert, "wav2vec2": tiny_wav2vec2, "wavlm": tiny_wavlm, "whisper": tiny_whisper}


def save_tiny(
    folder: Path,
    family: str,
    *,
    ctc: bool = True,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "5GB",
    **options: Any,
) -> Path:
    """Writes a tiny model and its processor to ``folder`` as a hub checkpoint would be; returns ``folder``.

    Base models of the waveform families get a feature extractor only. ``options`` go to the maker of the family.
    """
    model = TINY[family](ctc=ctc, **options).to(dtype)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    save_processor(folder, family, ctc=ctc)
    return folder


def save_processor(folder: Path, family: str, *, ctc: bool = True) -> None:
    """Writes the tokenizer and feature extractor files of a tiny model to ``folder``."""
    processor: Any
    if family == "whisper":
        processor = whisper_processor()
    else:
        processor = waveform_extractor()
        if ctc:
            vocabulary = folder / "vocab.json"
            vocabulary.write_text(json.dumps({text: index for index, text in enumerate(CHARACTERS)}))
            processor = Wav2Vec2Processor(processor, Wav2Vec2CTCTokenizer(str(vocabulary)))
    processor.save_pretrained(folder)


def waveform_extractor() -> Wav2Vec2FeatureExtractor:
    """The feature extractor of the waveform families."""
    return Wav2Vec2FeatureExtractor(
        feature_size=1, sampling_rate=RATE_HZ, padding_value=0.0, do_normalize=True, return_attention_mask=True
    )


def whisper_processor() -> WhisperProcessor:
    """A byte-level tokenizer without merges, and 16 mel bands over 2 s."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]
    tokenizer = WhisperTokenizer(
        vocab={letter: index for index, letter in enumerate(letters)}, merges=[], pad_token="<|endoftext|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": WHISPER_SPECIALS[1:]})
    tokenizer.set_prefix_tokens(predict_timestamps=False)
    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=2, sampling_rate=RATE_HZ)
    return WhisperProcessor(extractor, tokenizer)


def tiny_audio(seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    """Noise of the given length, float32, 16 kHz."""
    return (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE_HZ))).astype(np.float32)


def tiny_inputs(family: str, batch: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """Inputs for a forward pass; the second waveform is half as long and padded (boolean mask)."""
    random = torch.Generator().manual_seed(seed)
    if family == "whisper":
        features = torch.randn(batch, 16, 200, generator=random)
        return {"input_features": features, "decoder_input_ids": torch.randint(0, 256, (batch, 7), generator=random)}
    values = torch.randn(batch, RATE_HZ // 2, generator=random)
    mask = torch.ones(batch, RATE_HZ // 2, dtype=torch.bool)
    mask[1:, RATE_HZ // 4 :] = False
    return {"input_values": values * mask, "attention_mask": mask}


def _waveform_fields(pre_norm: bool, layer_norm: bool) -> dict[str, Any]:
    return {
        "vocab_size": len(CHARACTERS),
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": FFN,
        "conv_dim": (16, 16, 16, 16),
        "conv_kernel": (10, 8, 4, 4),
        "conv_stride": (5, 4, 4, 4),
        "conv_bias": layer_norm,
        "feat_extract_norm": "layer" if layer_norm else "group",
        "do_stable_layer_norm": pre_norm,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "initializer_range": 0.2,
        "layerdrop": 0.0,
        "mask_time_length": 2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def _random(model_class: type[PreTrainedModel], config: Any, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = model_class(config)
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 or "gru_rel_pos_const" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def save_recordings(folder: Path, name: str, count: int, first_seed: int) -> None:
    """Writes ``count`` recordings of noise, and the manifest NAME.jsonl that says Danish numbers of them."""
    lines = []
    for i in range(count):
        soundfile.write(folder / f"{name}{i}.flac", tiny_audio(0.4 + 0.1 * i, first_seed + i), 16_000)
        text = " ".join(NUMBERS[(i + k) % 6] for k in range(1 + i % 3))
        lines.append(json.dumps({"audio": f"{name}{i}.flac", "text": text, "language": "da"}))
    (folder / f"{name}.jsonl").write_text("\n".join(lines))


def save_tiny_lm(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Writes a tiny Qwen2 with a tokenizer of bytes to ``folder`` as a hub checkpoint would be; returns ``folder``."""
    alphabet = sorted(ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate([*alphabet, "<|endoftext|>"])}
    inner = Tokenizer(BPE(vocabulary, []))
    inner.pre_tokenizer, inner.decoder = ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    fields: dict[str, Any] = {
        "vocab_size": len(vocabulary),
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 40,
        "initializer_range": 0.2,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }
    _random(Qwen2ForCausalLM, Qwen2Config(**{**fields, **changes}), seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
