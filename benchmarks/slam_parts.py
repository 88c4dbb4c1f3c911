"""What the benchmarks of speech LLMs share: random parts on disk, noise, and the clock. Not a command."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

RATE_HZ = 16_000
END = "<|endoftext|>"

# from the model cards
QWEN = {"vocab_size": 151936, "num_key_value_heads": 2, "tie_word_embeddings": True}
QWEN_05B = {**QWEN, "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "intermediate_size": 4864}


@contextmanager
def timed(into: dict[str, Any], name: str) -> Iterator[None]:
    """Puts wall-clock and processor seconds of the context into a record; a GPU has done its work at either end."""
    settle()
    wall, processor = time.perf_counter(), time.process_time()
    yield
    settle()
    into[f"{name}_s"] = round(time.perf_counter() - wall, 2)
    into[f"{name}_cpu_s"] = round(time.process_time() - processor, 2)


def settle() -> None:
    """Waits until the GPU, where there is one, has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device_name() -> str:
    """What computes."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def save_whisper(
    folder: Path,
    *,
    mels: int = 80,
    window_s: int = 30,
    hop: int = 160,
    dtype: torch.dtype = torch.bfloat16,
    **shape: int,
) -> None:
    """A random Whisper, its feature extractor and a tokenizer of bytes."""
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    positions = window_s * RATE_HZ // hop // 2
    config = WhisperConfig(num_mel_bins=mels, max_source_positions=positions, **shape)
    WhisperForConditionalGeneration(config).to(dtype).save_pretrained(folder)
    extractor = WhisperFeatureExtractor(feature_size=mels, chunk_length=window_s, hop_length=hop)
    tokenizer = WhisperTokenizer(vocab={letter: i for i, letter in enumerate(alphabet())}, merges=[], pad_token=END)
    WhisperProcessor(extractor, tokenizer).save_pretrained(folder)


def save_qwen(folder: Path, tokenizer: Any, dtype: torch.dtype, shape: Mapping[str, Any]) -> None:
    """A random Qwen2 and its tokenizer."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(**shape, bos_token_id=None, eos_token_id=tokenizer.eos_token_id)
    Qwen2ForCausalLM(config).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def alphabet() -> list[str]:
    """A letter for every byte."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def make_tokenizer(texts: list[str], pieces: int) -> Any:
    """A byte-level BPE learned from ``texts``, with the end token; of bytes alone without texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=pieces, special_tokens=[END], initial_alphabet=alphabet(), show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=END, pad_token=END)


def noise(seconds: float, seed: int) -> np.ndarray:
    """Float32."""
    return (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE_HZ))).astype(np.float32)
