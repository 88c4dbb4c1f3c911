"""A SLAM-ASR training loop that does what the official code of arXiv 2603.27981 does, for comparisons of speed.

Written from a description of that code, not from the code: every batch is random; its recordings are read, filled up
to whole seconds and turned into mels in the collator, again in every epoch; the mels are padded to the longest of the
batch and the encoder runs over them at every step without a mask; the language model scores every position; all scores
are copied to the CPU at every step, where accuracy and word error rate of the most likely tokens are counted.

It is kind to that code in three ways: no gradient checkpointing, no dev set, nothing saved. On a CPU the copy is free.
Where there is a GPU it computes there.
benchmarks/slam.py throughput runs it.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import soundfile
import torch
from torch import Tensor, nn

RATE_HZ = 16_000
IGNORED = -100
PROMPT = "Transcribe speech to text.\n"
JOINED, HIDDEN = 5, 2048


class Published(nn.Module):
    """A frozen Whisper encoder, the projector, a frozen language model with or without adapters."""

    def __init__(self, encoder: Path, language_model: Path, lora_rank: int) -> None:
        super().__init__()
        from transformers import AutoModelForCausalLM, WhisperModel

        self.encoder = WhisperModel.from_pretrained(encoder, dtype=torch.float32).encoder
        self.language_model = AutoModelForCausalLM.from_pretrained(language_model, dtype=torch.float32)
        size, text_size = self.encoder.config.d_model, self.language_model.config.hidden_size
        self.projector = nn.Sequential(
            nn.Linear(JOINED * size, HIDDEN),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(HIDDEN, text_size),
            nn.LayerNorm(text_size),
        )
        self.encoder.requires_grad_(False)
        self.language_model.requires_grad_(False)
        if lora_rank:
            self._adapt(lora_rank)

    def _adapt(self, rank: int) -> None:
        from peft import LoraConfig, get_peft_model

        targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
        config = LoraConfig(
            r=rank, lora_alpha=2 * rank, lora_dropout=0.1, target_modules=targets, task_type="CAUSAL_LM"
        )
        self.language_model = get_peft_model(self.language_model, config)

    def audio(self, mels: Tensor) -> Tensor:
        """Embeddings of padded recordings (batch, tokens, text size)."""
        hidden = nn.functional.gelu(self.encoder.conv1(mels))
        hidden = nn.functional.gelu(self.encoder.conv2(hidden)).transpose(1, 2)
        hidden = hidden + self.encoder.embed_positions.weight[: hidden.shape[1]]
        for layer in self.encoder.layers:
            hidden = layer(hidden, None)
        hidden = self.encoder.layer_norm(hidden)
        tokens = hidden.shape[1] // JOINED
        return self.projector(hidden[:, : tokens * JOINED].reshape(len(hidden), tokens, -1))

    def forward(self, batch: dict[str, Any]) -> Any:
        """Loss, and scores of all positions."""
        embed = self.language_model.get_input_embeddings()
        rows = [
            torch.cat([audio[:length], embed(prompt)])
            for audio, length, prompt in zip(
                self.audio(batch["mels"]), batch["audio_tokens"], batch["prompts"], strict=True
            )
        ]
        front = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_side="left")
        sequence = torch.cat([front, embed(batch["answers"])], dim=1)
        return self.language_model(inputs_embeds=sequence, attention_mask=batch["mask"], labels=batch["labels"])


@dataclass
class Collator:
    """Makes a batch of manifest entries."""

    extractor: Any
    tokenizer: Any
    folder: Path

    def __call__(self, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Mels, token rows, mask and labels."""
        mels = [self._mel(entry["audio"]) for entry in entries]
        lengths = [-(-mel.shape[1] // 2) // JOINED for mel in mels]
        longest = max(mel.shape[1] for mel in mels)
        prompt = torch.tensor(self.tokenizer(PROMPT).input_ids)
        answers = [torch.tensor([*self.tokenizer(e["text"]).input_ids, self.tokenizer.eos_token_id]) for e in entries]
        pad = nn.utils.rnn.pad_sequence
        fronts = [torch.ones(length + len(prompt), dtype=torch.long) for length in lengths]
        front = pad(fronts, batch_first=True, padding_side="left")
        behind = pad([torch.ones_like(answer) for answer in answers], batch_first=True)
        labels = pad(answers, batch_first=True, padding_value=IGNORED)
        return {
            "mels": torch.stack([nn.functional.pad(mel, (0, longest - mel.shape[1])) for mel in mels]),
            "audio_tokens": lengths,
            "prompts": [prompt] * len(entries),
            "answers": pad(answers, batch_first=True, padding_value=self.tokenizer.eos_token_id),
            "mask": torch.cat([front, behind], dim=1),
            "labels": torch.cat([torch.full_like(front, IGNORED), labels], dim=1),
        }

    def _mel(self, name: str) -> Tensor:
        wave, _ = soundfile.read(self.folder / name, dtype="float32")
        filled = np.pad(wave, (0, -len(wave) % RATE_HZ))
        made = self.extractor(filled, sampling_rate=RATE_HZ, padding="do_not_pad", return_tensors="pt")
        return made["input_features"][0]


def schedule(updates: int) -> Any:
    """Linear warm-up over a twentieth, then a cosine to a tenth."""
    warm_up = math.ceil(0.05 * updates)

    def rate(step: int) -> float:
        if step < warm_up:
            return step / warm_up
        done = (step - warm_up) / max(1, updates - warm_up)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * done))

    return rate


def metrics(scores: Tensor, labels: Tensor, tokenizer: Any) -> tuple[float, float]:
    """Accuracy of tokens, and word error rate, of a batch's most likely next tokens."""
    guesses, expected = scores.argmax(dim=-1)[:, :-1], labels.cpu()[:, 1:]
    is_label = expected != IGNORED
    accuracy = float((guesses == expected)[is_label].float().mean())
    said = [tokenizer.decode(row[own], skip_special_tokens=True) for row, own in zip(guesses, is_label, strict=True)]
    meant = [tokenizer.decode(row[own], skip_special_tokens=True) for row, own in zip(expected, is_label, strict=True)]
    return accuracy, jiwer.wer(meant, said)


def moved(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch with its tensors on the device, prompts included."""
    tensors = {name: value.to(device) for name, value in batch.items() if isinstance(value, Tensor)}
    return {**batch, **tensors, "prompts": [prompt.to(device) for prompt in batch["prompts"]]}


@dataclass
class Training:
    """Everything that is built before the first step."""

    model: Published
    loader: Any
    tokenizer: Any
    epochs: int
    device: torch.device
    is_bf16: bool

    def run(self) -> list[dict[str, float]]:
        """Trains; what was logged at every step."""
        moving = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(moving, lr=1e-4, weight_decay=0.01)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule(self.epochs * len(self.loader)))
        log = []
        self.model.train()
        self.model.encoder.eval()
        for _ in range(self.epochs):
            for batch in self.loader:
                batch = moved(batch, self.device)
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_bf16):
                    output = self.model(batch)
                optimizer.zero_grad()
                output.loss.backward()
                nn.utils.clip_grad_norm_(moving, 1.0)
                optimizer.step()
                scheduler.step()
                accuracy, wer = metrics(output.logits.detach().cpu(), batch["labels"], self.tokenizer)
                log.append({"loss": output.loss.item(), "accuracy": accuracy, "wer": wer})
        return log


def prepare(
    encoder: Path,
    language_model: Path,
    manifest: Path,
    *,
    epochs: int,
    batch: int,
    lora_rank: int = 0,
    is_bf16: bool = False,
    seed: int = 42,
) -> Training:
    """A training of the parts in two folders on the recordings of a manifest (JSON lines of audio and text)."""
    from transformers import AutoTokenizer, WhisperFeatureExtractor

    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = Published(encoder, language_model, lora_rank).to(device)
    tokenizer = AutoTokenizer.from_pretrained(language_model)
    extractor = WhisperFeatureExtractor.from_pretrained(encoder)
    entries = [json.loads(line) for line in manifest.read_text().splitlines()]
    collator = Collator(extractor, tokenizer, manifest.parent)
    loader = torch.utils.data.DataLoader(entries, batch_size=batch, shuffle=True, collate_fn=collator)
    return Training(model, loader, tokenizer, epochs, device, is_bf16)
