"""Trains two open-vocabulary English recognisers from scratch on real and synthetic speech.

    python training/open_vocabulary.py prepare CORPUS WORK
    python training/open_vocabulary.py train WORK --model ctc
    python training/open_vocabulary.py train WORK --model whisper

CORPUS holds the manifests en-speechocean762.jsonl, en-librispeech.jsonl and en-ljspeech.jsonl and text/en__*.txt.
``prepare`` splits them by speaker, adds synthetic speech and writes one memory map and the manifests of the held-out
parts. A training that was cut continues from WORK/ctc/state.pt or WORK/whisper/state.pt; the averaged model lies in
WORK/ctc/model or WORK/whisper/model. Equal seeds give equal batches.
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType

import jiwer
import numpy as np
import torch

import open_corpus
import open_ctc
import open_whisper
from ahead import drawn_ahead
from open_drawing import Example, Speech

BLOCK = 8  # batches drawn together, so that each holds examples of about equal length


@dataclass(frozen=True)
class Recipe:
    """How one model is trained.

    Attributes:
        longest_s: longest example.
        real_share: probability that an utterance is real.
        join: probability that an example is several utterances.
        save_every: steps from one saved state and measurement to the next.
    """

    module: ModuleType
    steps: int
    batch: int
    peak: float
    longest_s: float
    real_share: float
    join: float
    save_every: int = 250


RECIPES = {
    "ctc": Recipe(open_ctc, 9000, 10, 1e-3, 8.5, 0.6, 0.15),
    "whisper": Recipe(open_whisper, 3000, 8, 1e-3, open_whisper.WINDOW_S, 0.6, 0.8),
}
WARM_UP_STEPS = 300
DEV_UTTERANCES = 40


def learning_rate(step: int, done: float, peak: float) -> float:
    """Linear warm-up, flat until a third of the training is ``done``, then a cosine down to a hundredth of the peak."""
    if step < WARM_UP_STEPS:
        return peak * (step + 1) / WARM_UP_STEPS
    progress = min(max(0.0, (done - 1 / 3) / (2 / 3)), 1.0)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def draw_block(speech: Speech, recipe: Recipe, seed: int, block: int) -> list[list[Example]]:
    """BLOCK batches; each holds neighbours in length, their order is random."""
    rng = np.random.default_rng([seed, block])
    real_share = 0.4 if block * BLOCK < 600 else recipe.real_share  # the flat start needs known word times
    examples = [
        speech.draw(rng, longest_s=recipe.longest_s, real_share=real_share, join=recipe.join)
        for _ in range(BLOCK * recipe.batch)
    ]
    examples.sort(key=lambda e: len(e.wave))
    return [examples[i * recipe.batch : (i + 1) * recipe.batch] for i in rng.permutation(BLOCK)]


def dev_wer(model, processor, module: ModuleType, speech: Speech) -> float:
    """Word error rate on every so many dev utterances."""
    lines = speech.dev[:: max(1, len(speech.dev) // DEV_UTTERANCES)]
    model.eval()
    heard: list[str] = []
    for i in range(0, len(lines), 10):
        heard += module.transcribe(model, processor, [speech.samples(line) for line in lines[i : i + 10]])
    print("   ", " | ".join(heard[:4]), flush=True)
    return jiwer.wer([line["text"] for line in lines], heard)


@dataclass(frozen=True)
class Extent:
    """How long is trained, and on what.

    Attributes:
        steps: in all.
        batch: utterances a step.
        hours_limit: end, learning rate included, after this long in all.
        workers: processes that draw batches ahead; 0 draws each when it is wanted.
    """

    steps: int
    batch: int
    hours_limit: float | None
    device: str
    workers: int


class Training:
    """One model, its optimiser and its running average, resumable from ``out/state.pt``."""

    def __init__(self, recipe: Recipe, out: Path, speech: Speech, seed: int, device: str) -> None:
        torch.manual_seed(seed)
        out.mkdir(parents=True, exist_ok=True)
        self.recipe, self.out, self.seed, self.device = recipe, out, seed, device
        texts = [line["text"] for line in speech.real + speech.synthetic]
        self.model, self.processor = recipe.module.make(out, texts)
        self.model.to(device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.peak, betas=(0.9, 0.98), weight_decay=0.02, fused=device != "cpu"
        )
        average = torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
        self.averaged = torch.optim.swa_utils.AveragedModel(self.model, multi_avg_fn=average)
        self.step, self.seconds = 0, 0.0
        if (out / "state.pt").exists():
            state = torch.load(out / "state.pt", map_location="cpu")
            for name in ("model", "averaged", "optimizer"):
                getattr(self, name).load_state_dict(state[name])
            self.step, self.seconds = state["step"], state["seconds"]

    def run(self, draw: Callable[[int], list[list[Example]]], measure: Callable[["Training"], str], to: Extent) -> None:
        """Steps up to the extent; ``draw(block)`` gives the examples of BLOCK batches, ``measure`` what is printed."""
        prepared = partial(_prepare, draw, self.recipe.module.batch_of, self.processor)
        blocks = drawn_ahead(prepared, self.step // BLOCK, -(-to.steps // BLOCK), to.workers)
        started, losses, block = time.monotonic() - self.seconds, [], []
        limit_s = 3600 * to.hours_limit if to.hours_limit else math.inf
        while (done := max(self.step / to.steps, self.seconds / limit_s)) < 1:
            if self.step % BLOCK == 0 or not block:
                block = next(blocks)
            losses.append(self._one_step(block[self.step % BLOCK], done))
            self.seconds = time.monotonic() - started
            if self.step % 50 == 0:
                print(f"step {self.step} loss {torch.stack(losses).mean():.3f} {self.seconds:.0f} s", flush=True)
                losses = []
            if self.step % self.recipe.save_every == 0:
                self.save()
                print(f"step {self.step} dev WER {measure(self)}", flush=True)
        self.save()
        print(f"finished at step {self.step}, dev WER {measure(self)}", flush=True)

    def _one_step(self, batch: dict[str, torch.Tensor], done: float) -> torch.Tensor:
        """The loss before the step; ``done`` is the share of the training that is over."""
        torch.manual_seed(self.seed * 1_000_003 + self.step)
        np.random.seed(self.seed * 1_003 + self.step)  # transformers draws SpecAugment masks from NumPy's global state
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, done, self.recipe.peak)
        self.model.train()
        batch = {name: values.to(self.device) for name, values in batch.items()}
        loss = self.recipe.module.loss(self.model, batch, self.step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.averaged.update_parameters(self.model)
        self.step += 1
        return loss.detach()

    def save(self) -> None:
        """Writes the state and, in the Hugging Face layout, the averaged model."""
        state = {name: getattr(self, name).state_dict() for name in ("model", "averaged", "optimizer")}
        torch.save(state | {"step": self.step, "seconds": self.seconds}, self.out / "state.new")
        (self.out / "state.new").replace(self.out / "state.pt")
        self.recipe.module.stock(self.averaged.module).save_pretrained(self.out / "model")
        self.processor.save_pretrained(self.out / "model")


def _prepare(draw, batch_of, processor, block: int) -> list[dict[str, torch.Tensor]]:
    return [batch_of(processor, examples) for examples in draw(block)]


def train(work: Path, name: str, *, seed: int, to: Extent) -> None:
    """Runs the recipe ``name``."""
    recipe, speech = replace(RECIPES[name], batch=to.batch), Speech(work)
    run = Training(recipe, work / name, speech, seed, to.device)
    print(name, sum(p.numel() for p in run.model.parameters()), "parameters, step", run.step, flush=True)

    def measure(run: Training) -> str:
        return f"{100 * dev_wer(run.averaged.module, run.processor, recipe.module, speech):.1f} %"

    run.run(partial(draw_block, speech, recipe, seed), measure, to)


def add_extent(parser: argparse.ArgumentParser) -> None:
    """The options that ``extent_of`` reads."""
    parser.add_argument("--steps", type=int, help="other than the recipe's; the learning rate ends with them")
    parser.add_argument("--batch", type=int, help="utterances a step, other than the recipe's")
    parser.add_argument("--hours-limit", type=float, help="end, learning rate included, after this long in all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw batches ahead")


def extent_of(given: argparse.Namespace, recipe: Recipe) -> Extent:
    """How long to train; sets torch's threads."""
    torch.set_num_threads(given.threads)
    # on a GPU TF32; on a CPU oneDNN, faster than MKL where it is not Intel's
    torch.set_float32_matmul_precision("high" if given.device != "cpu" else "medium")
    steps, batch = given.steps or recipe.steps, given.batch or recipe.batch
    return Extent(steps, batch, given.hours_limit, given.device, given.workers)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    preparing = commands.add_parser("prepare")
    preparing.add_argument("corpus", type=Path)
    preparing.add_argument("work", type=Path)
    training = commands.add_parser("train")
    training.add_argument("work", type=Path)
    training.add_argument("--model", choices=RECIPES, required=True)
    add_extent(training)
    for command in (preparing, training):
        command.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.command == "prepare":
        open_corpus.prepare(given.corpus, given.work, seed=given.seed)
        return
    train(given.work, given.model, seed=given.seed, to=extent_of(given, RECIPES[given.model]))


if __name__ == "__main__":
    main()
