"""Trains mini-lm, a Qwen2 of a million parameters that knows English, some Dutch and little Danish, from scratch.

    python training/mini_lm.py CORPUS OUT [--seed 0] [--steps 2200]

Two fifths of what it learns from is text. The others are lines behind a noisy picture of themselves: embeddings of
the line's own tokens, each held for one to four positions, blended, with noise and gaps, then the prompt of the
speech LLMs, then the line. A large language model has learned from running text to repeat what stands before it; one
of this size does not, and a frozen one that can't repeat can't read audio through a projector.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch

import mini_corpus
from phrases import LANGUAGES, phrase

PROMPT = "Transcribe speech to text.\n"
SHARES = {"en": 0.55, "nl": 0.33, "da": 0.12}
PIECES = 1200
LONGEST = 28  # tokens of a line
BATCH, PEAK, WARM_UP = 20, 2e-3, 150
COPIES = 0.6
HELD_OUT = 60


def read_lines(corpus: Path, seed: int) -> dict[str, list[str]]:
    """By language, sentences and phrases that no test or dev set of mini_corpus holds, shuffled."""
    lines = {}
    for number, language in enumerate(LANGUAGES):
        rng = np.random.default_rng([seed, number, 1])
        parts = mini_corpus.plan(corpus, language, 0)
        kept = {*parts["test"], *parts["dev"]}
        written = mini_corpus.sentences(corpus / "text", language, longest=120)
        said = [each for each in (phrase(language, rng) for _ in range(len(written))) if each not in kept]
        lines[language] = rng.permutation(written + said).tolist()
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
        hidden_size=160,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=432,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=end,
    )
    return Qwen2ForCausalLM(config)


def picture(line: torch.Tensor, embed: torch.nn.Embedding, rng: np.random.Generator) -> torch.Tensor:
    """(positions, width): what a projector might make of somebody saying the line."""
    table = embed.weight.detach()
    scale = float(table.std())
    held = torch.as_tensor(rng.integers(1, 5, len(line)))
    found = table[line].repeat_interleave(held, dim=0)
    blend = torch.as_tensor(rng.uniform(0, 0.5, len(found)) * (rng.random(len(found)) < 0.3), dtype=found.dtype)
    found = (1 - blend)[:, None] * found + blend[:, None] * found.roll(-1, dims=0)
    gaps = torch.as_tensor(rng.random(len(found)) < rng.uniform(0, 0.3))
    found = torch.where(gaps[:, None], torch.zeros_like(found), found)
    noise = torch.as_tensor(rng.standard_normal(found.shape), dtype=found.dtype)
    found = found + rng.uniform(0, 0.8) * scale * noise
    silence = [torch.zeros(int(rng.integers(0, 6)), found.shape[1]) for _ in range(2)]
    return torch.cat([silence[0], found, silence[1]]) * float(np.exp(rng.uniform(-0.5, 0.5)))


class Batches:
    """Rows of embeddings and labels, drawn from the lines."""

    def __init__(self, lines: dict[str, list[str]], tokenizer, model) -> None:
        self.tokenizer, self.embed = tokenizer, model.get_input_embeddings()
        self.tokens = {g: [ids for ids in map(self._row, lines[g]) if len(ids) <= LONGEST] for g in LANGUAGES}
        self.prompt = torch.tensor(tokenizer(PROMPT).input_ids)

    def _row(self, line: str) -> list[int]:
        return [*self.tokenizer(line).input_ids, self.tokenizer.eos_token_id]

    def draw(self, rng: np.random.Generator, *, copies: float, language: str | None = None, start: int = HELD_OUT):
        """Embeddings, labels and mask of BATCH rows; a share ``copies`` stands behind its picture."""
        rows, labels = [], []
        for _ in range(BATCH):
            g = language or LANGUAGES[rng.choice(3, p=[SHARES[each] for each in LANGUAGES])]
            pool = self.tokens[g][start:] if start else self.tokens[g][:HELD_OUT]
            line = torch.tensor(pool[rng.integers(len(pool))])
            if rng.random() < copies:
                front = torch.cat([picture(line[:-1], self.embed, rng), self.embed(self.prompt)])
            else:
                front = self.embed(self.prompt[-1:])  # a new line
            rows.append(torch.cat([front, self.embed(line)]))
            labels.append(torch.cat([torch.full((len(front),), -100), line]))
        pad = torch.nn.utils.rnn.pad_sequence
        whole = pad(labels, batch_first=True, padding_value=-100)
        lengths = torch.tensor([[len(row)] for row in labels])
        return pad(rows, batch_first=True), whole, (torch.arange(whole.shape[1]) < lengths).long()


def rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to a fiftieth."""
    if step < WARM_UP:
        return PEAK * (step + 1) / WARM_UP
    return PEAK * (0.02 + 0.49 * (1 + math.cos(math.pi * (step - WARM_UP) / max(1, steps - WARM_UP))))


@torch.no_grad()
def measures(model, batches: Batches, seed: int) -> dict[str, dict[str, float]]:
    """On held-out lines, by language: perplexity of a token of text, and share of copied tokens that are right."""
    model.eval()
    found = {}
    for language in LANGUAGES:
        rng = np.random.default_rng([seed, 99])
        losses, right = [], []
        for copies in (0.0, 1.0):
            embeddings, labels, mask = batches.draw(rng, copies=copies, language=language, start=0)
            logits = model(inputs_embeds=embeddings, attention_mask=mask).logits[:, :-1]
            told = labels[:, 1:] != -100
            if copies:
                right.append((logits.argmax(-1) == labels[:, 1:])[told].float().mean())
            else:
                losses.append(torch.nn.functional.cross_entropy(logits[told], labels[:, 1:][told]))
        found[language] = {"perplexity": round(math.exp(losses[0]), 1), "copied": round(float(right[0]), 3)}
    model.train()
    return found


def train(corpus: Path, out: Path, *, seed: int, steps: int) -> None:
    """Writes ``out``/model."""
    out.mkdir(parents=True, exist_ok=True)
    lines = read_lines(corpus, seed)
    tokenizer = make_tokenizer(lines)
    model = make_model(tokenizer, seed)
    batches = Batches(lines, tokenizer, model)
    print(sum(p.numel() for p in model.parameters()), "parameters;", {g: len(t) for g, t in batches.tokens.items()})
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.98), weight_decay=0.02)
    started = time.monotonic()
    for step in range(steps):
        embeddings, labels, mask = batches.draw(np.random.default_rng([seed, 5, step]), copies=COPIES)
        logits = model(inputs_embeds=embeddings, attention_mask=mask).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], ignore_index=-100)
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
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    train(given.corpus, given.out, seed=given.seed, steps=given.steps)


if __name__ == "__main__":
    main()
