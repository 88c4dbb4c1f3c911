"""What the trainings share: processors with vocabularies of their own, and the settings that go with them."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from strings import RATE_HZ

CTC = {
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
    "hidden_dropout": 0.1,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "final_dropout": 0.1,
    "layerdrop": 0.0,
    "ctc_loss_reduction": "mean",
    "ctc_zero_infinity": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PROMPT = ("<|startoftranscript|>", "<|notimestamps|>")  # as in English-only Whisper


def ctc_processor(folder: Path, characters: str) -> Any:
    """A ``Wav2Vec2Processor`` that spells with ``characters``; leaves vocab.json in ``folder``."""
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

    vocab = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *characters])}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    extractor = Wav2Vec2FeatureExtractor(
        feature_size=1, sampling_rate=RATE_HZ, padding_value=0.0, do_normalize=True, return_attention_mask=True
    )
    return Wav2Vec2Processor(extractor, Wav2Vec2CTCTokenizer(str(folder / "vocab.json")))


def whisper_tokenizer(texts: Iterable[str], pieces: int, languages: Sequence[str] = ("en",)) -> Any:
    """A byte-level BPE of ``pieces`` over ``texts`` and the special tokens of Whisper."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import WhisperTokenizer

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=pieces, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    tokenizer = WhisperTokenizer(
        vocab=learned["vocab"], merges=[tuple(m) for m in learned["merges"]], pad_token="<|endoftext|>"
    )
    spoken = [f"<|{language}|>" for language in languages]
    specials = ["<|startoftranscript|>", *spoken, "<|translate|>", "<|transcribe|>", "<|startofprev|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": [*specials, "<|nocaptions|>", "<|notimestamps|>"]})
    tokenizer.set_prefix_tokens(predict_timestamps=False)
    return tokenizer


def make_whisper(tokenizer: Any, *, longest: int, languages: Sequence[str] = (), **sizes: Any) -> torch.nn.Module:
    """A ``WhisperForConditionalGeneration`` with random weights that answers in at most ``longest`` tokens.

    With ``languages`` it is told which one is spoken, and that it is to transcribe.
    """
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

    token = tokenizer.convert_tokens_to_ids
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), token("<|endoftext|>"))
    ids["decoder_start_token_id"] = token(PROMPT[0])
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=80,
        max_target_positions=longest,
        dropout=0.1,
        apply_spec_augment=True,
        begin_suppress_tokens=None,
        suppress_tokens=None,
        **sizes,
        **ids,
    )
    model = WhisperForConditionalGeneration(config)
    told = {}
    if languages:
        told = {"lang_to_id": {f"<|{each}|>": token(f"<|{each}|>") for each in languages}}
        told["task_to_id"] = {each: token(f"<|{each}|>") for each in ("transcribe", "translate")}
    model.generation_config = GenerationConfig(
        **ids,
        **told,
        max_length=longest,
        is_multilingual=bool(languages),
        no_timestamps_token_id=token(PROMPT[1]),
        return_timestamps=False,
    )
    return model


def frames_after(samples: int, kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Frames that convolutions without padding leave of so many samples."""
    for kernel, stride in zip(kernels, strides, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


def padded(lines: Sequence[Sequence[int]]) -> torch.Tensor:
    """(lines, longest) token ids, -100 behind the end."""
    rows = [torch.tensor(line) for line in lines]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
