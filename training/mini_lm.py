"""Trains mini-lm, a Qwen2 of a million parameters that knows English, some Dutch and little Danish, from scratch.

    python training/mini_lm.py CORPUS OUT [--seed 0] [--steps 5000] [--device cuda --workers 3 --batch 64]

Two fifths of what it learns from is text. The others are lines behind a noisy picture of themselves: embeddings of
the line's own tokens, each held for one to four positions, blended, with noise and gaps, then the prompt of the
speech LLMs, then the line. A large language model has learned from running text to repeat what stands before it; one
of this size does not, and a frozen one that can't repeat can't read audio through a projector. In a third of those
lines the words are shuffled, so that it learns to look rather than to remember.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

import mini_corpus
from ahead import drawn_ahead
from phrases import LANGUAGES, phrase

PROMPT = "Transcribe speech to text.\n"
SHARES = {"en": 0.55, "nl": 0.33, "da": 0.12}
PIECES = 1200
LONGEST = 28  # tokens of a line
PEAK, WARM_UP = 2e-3, 150
COPIES, SHUFFLED = 0.6, 0.35
HELD_OUT = 60
LEAST_PHRASES = 4000


def read_lines(corpus: Path, seed: int) -> dict[str, list[str]]:
    """By language, distinct sentences and phrases that no test or dev set of mini_corpus holds, shuffled."""
    lines = {}
    for number, language in enumerate(LANGUAGES):
        rng = np.random.default_rng([seed, number, 1])
        parts = mini_corpus.plan(corpus, language, 0)
        kept = {*parts["test"], *parts["dev"]}
        written = mini_corpus.sentences(corpus / "text", language, longest=120)
        drawn = [phrase(language, rng) for _ in range(max(len(written), LEAST_PHRASES))]
        said = [each for each in drawn if each not in kept]
        lines[language] = rng.permutation(list(dict.fromkeys(written + said))).tolist()
    return lines


def make_tokenizer(lines: dict[str, list[str]]):
    """A byte-level BPE and the end token, which also pads."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    texts = [line for language in LANGUAGES for line in lines[language][:6000]]
    inner.train_from_iterator([*texts, *[PROMPT] * 50], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


def make_model(tokenizer, seed: int):
    """Random weights."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    end = tokenizer.eos_token_id
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        intermediate_size=512,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=end,
    )
    return Qwen2ForCausalLM(config)


@dataclass
class Row:
    """Positions in front of what is to be written, and that; all (positions,).

    Attributes:
        tokens: whose embedding stands there.
        others: whose embedding is blended in.
        blend: how much of it; -1 leaves nothing but noise.
        gain: of the whole; 0 is silence.
        noise: beside the embedding, in its standard deviations.
        labels: what is to be written; -100 in front of it.
    """

    tokens: np.ndarray
    others: np.ndarray
    blend: np.ndarray
    gain: np.ndarray
    noise: np.ndarray
    labels: np.ndarray


def plain(tokens: np.ndarray, *, told: bool) -> Row:
    """Tokens as they are."""
    none = np.zeros(len(tokens))
    return Row(tokens, tokens, none, none + 1, none, tokens if told else np.full(len(tokens), -100))


def picture(line: np.ndarray, rng: np.random.Generator) -> Row:
    """What a projector might make of somebody saying the line."""
    found = np.repeat(line, rng.integers(1, 5, len(line)))
    count = len(found)
    blend = rng.uniform(0, 0.5, count) * (rng.random(count) < 0.3)
    gaps = rng.random(count) < rng.uniform(0, 0.3)
    gain, noise = np.full(count, np.exp(rng.uniform(-0.5, 0.5))), np.full(count, rng.uniform(0.01, 0.8))
    row = Row(found, np.roll(found, -1), np.where(gaps, -1, blend), gain, noise, np.full(count, -100))
    silence = [plain(np.zeros(rng.integers(0, 6), np.int64), told=False) for _ in range(2)]
    for each in silence:
        each.gain = each.gain * 0
    return joined(silence[0], row, silence[1])


def joined(*rows: Row) -> Row:
    """One behind the other."""
    return Row(*(np.concatenate([getattr(row, name) for row in rows]) for name in Row.__dataclass_fields__))


class Batches:
    """Rows drawn from the lines."""

    def __init__(self, lines: dict[str, list[str]], tokenizer, size: int) -> None:
        self.tokenizer, self.size = tokenizer, size
        self.lines = {g: [line for line in lines[g] if len(self._tokens(line)) <= LONGEST] for g in LANGUAGES}
        self.prompt = np.array(tokenizer(PROMPT).input_ids)

    def _tokens(self, line: str) -> np.ndarray:
        return np.array([*self.tokenizer(line).input_ids, self.tokenizer.eos_token_id])

    def row(self, line: str, *, copied: bool, rng: np.random.Generator) -> Row:
        """The line behind its picture and the prompt, or alone behind a new line."""
        if not copied:
            return joined(plain(self.prompt[-1:], told=False), plain(self._tokens(line), told=True))
        tokens = self._tokens(line)
        return joined(picture(tokens[:-1], rng), plain(self.prompt, told=False), plain(tokens, told=True))

    def draw(self, seed: list[int], step: int) -> dict[str, torch.Tensor]:
        """A batch for training; a share COPIES stands behind its picture."""
        rng = np.random.default_rng([*seed, step])
        rows = []
        for _ in range(self.size):
            pool = self.lines[LANGUAGES[rng.choice(3, p=[SHARES[each] for each in LANGUAGES])]]
            line, copied = pool[rng.integers(HELD_OUT, len(pool))], rng.random() < COPIES
            if copied and rng.random() < SHUFFLED:
                line = " ".join(rng.permutation(line.split()))
            rows.append(self.row(line, copied=copied, rng=rng))
        return stacked(rows)

    def held_out(self, language: str, *, copied: bool, seed: int) -> dict[str, torch.Tensor]:
        """All lines of the language that training does not see."""
        rng = np.random.default_rng([seed, 99])
        return stacked([self.row(line, copied=copied, rng=rng) for line in self.lines[language][:HELD_OUT]])


def stacked(rows: list[Row]) -> dict[str, torch.Tensor]:
    """The rows as (rows, positions), filled up behind with silence that is masked."""
    longest = max(len(row.tokens) for row in rows)
    mask = np.stack([np.arange(longest) < len(row.tokens) for row in rows])
    batch = {"mask": torch.from_numpy(mask.astype(np.int64))}
    for name in Row.__dataclass_fields__:
        values = [getattr(row, name) for row in rows]
        kind, fill = (np.int64, -100 if name == "labels" else 0) if values[0].dtype.kind == "i" else (np.float32, 0)
        filled = np.full((len(rows), longest), fill, kind)
        for into, each in zip(filled, values, strict=True):
            into[: len(each)] = each
        batch[name] = torch.from_numpy(filled)
    return batch


def logits_of(model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """(rows, positions - 1, vocabulary): of each next token."""
    table = model.get_input_embeddings()
    lost = (batch["blend"] < 0)[..., None]
    blend = batch["blend"].clamp(min=0)[..., None]
    is_real = (batch["noise"] == 0)[..., None]  # the prompt and the line; a picture is no way for gradients
    weight = table.weight.detach()
    pictured = (1 - blend) * weight[batch["tokens"]] + blend * weight[batch["others"]]
    pictured = pictured.masked_fill(lost, 0)
    noise = torch.randn_like(pictured) * weight.std() * batch["noise"][..., None]
    embeddings = torch.where(is_real, table(batch["tokens"]), pictured + noise) * batch["gain"][..., None]
    return model(inputs_embeds=embeddings, attention_mask=batch["mask"], use_cache=False).logits[:, :-1]


def rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to a fiftieth."""
    if step < WARM_UP:
        return PEAK * (step + 1) / WARM_UP
    return PEAK * (0.02 + 0.49 * (1 + math.cos(math.pi * (step - WARM_UP) / max(1, steps - WARM_UP))))


@torch.no_grad()
def measures(model, batches: Batches, seed: int) -> dict[str, dict[str, float]]:
    """On held-out lines, by language: perplexity of a token of text, shares of tokens and of lines copied rightly."""
    model.eval()
    found = {}
    for language in LANGUAGES:
        torch.manual_seed(seed)
        written, copied = (batches.held_out(language, copied=each, seed=seed) for each in (False, True))
        written, copied = ({k: v.to(model.device) for k, v in each.items()} for each in (written, copied))
        loss = torch.nn.functional.cross_entropy(logits_of(model, written).transpose(1, 2), written["labels"][:, 1:])
        told = copied["labels"][:, 1:] != -100
        right = (logits_of(model, copied).argmax(-1) == copied["labels"][:, 1:]) & told
        found[language] = {
            "perplexity": round(math.exp(loss), 1),
            "copied": round(float(right.sum() / told.sum()), 3),
            "lines": round(float((right.sum(1) == told.sum(1)).float().mean()), 3),
        }
    model.train()
    return found


def train(corpus: Path, out: Path, *, seed: int, steps: int, batch: int, device: str, workers: int) -> None:
    """Writes ``out``/model."""
    out.mkdir(parents=True, exist_ok=True)
    lines = read_lines(corpus, seed)
    tokenizer = make_tokenizer(lines)
    model = make_model(tokenizer, seed).to(device)
    batches = Batches(lines, tokenizer, batch)
    print(sum(p.numel() for p in model.parameters()), "parameters;", {g: len(t) for g, t in batches.lines.items()})
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.98), weight_decay=0.02)
    started = time.monotonic()
    for step, drawn in enumerate(drawn_ahead(partial(batches.draw, [seed, 5]), 0, steps, workers)):
        drawn = {name: values.to(device) for name, values in drawn.items()}
        torch.manual_seed(seed * 1_000_003 + step)
        loss = torch.nn.functional.cross_entropy(logits_of(model, drawn).transpose(1, 2), drawn["labels"][:, 1:])
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 200 == 0 or step + 1 == steps:
            print(f"step {step + 1} loss {loss.item():.3f} {time.monotonic() - started:.0f} s", flush=True)
            print("   ", json.dumps(measures(model, batches, seed)), flush=True)
            model.save_pretrained(out / "model")
            tokenizer.save_pretrained(out / "model")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw batches ahead")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.set_float32_matmul_precision("high")
    what = {name: getattr(given, name) for name in ("seed", "steps", "batch", "device", "workers")}
    train(given.corpus, given.out, **what)


if __name__ == "__main__":
    main()
