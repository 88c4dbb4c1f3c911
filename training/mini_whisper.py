"""Trains mini-whisper, a trilingual Whisper of a few million parameters with eight encoder layers, from scratch.

    python training/mini_whisper.py prepare CORPUS WORK
    python training/mini_whisper.py train WORK [--seed 0] [--hours-limit H]
    python training/mini_whisper.py train WORK --device cuda --workers 8 --batch 48 --steps 20000 --hours-limit 0.12

CORPUS is the folder of manifests and texts; see mini_corpus.py for what is made of it. A training that was cut goes on
from WORK/whisper/state.pt; the averaged model lies in WORK/whisper/model.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jiwer
import numpy as np
import torch

import mini_corpus
import open_whisper
from open_drawing import Example, Speech
from open_vocabulary import BLOCK, Extent, Recipe, Training, add_extent, extent_of
from phrases import LANGUAGES
from recognisers import make_whisper, whisper_tokenizer
from strings import RATE_HZ

WINDOW_S = 6.0
SHARES = {"en": 0.45, "nl": 0.33, "da": 0.22}
REAL = {"en": 0.5, "nl": 0.0, "da": 0.0}
PIECES = 500
WIDTH = 192
STEPS = 6000


class ThreeLanguages(Speech):
    """Utterances by language; what is joined is of one."""

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        self.pools = {
            (g, synthetic): [line for line in pool if line["language"] == g]
            for g in LANGUAGES
            for synthetic, pool in ((False, self.real), (True, self.synthetic))
        }

    def draw(self, rng: np.random.Generator, *, longest_s: float, real_share: float, join: float) -> Example:
        """One example of one language; ``real_share`` holds for none, `REAL` does."""
        language = LANGUAGES[rng.choice(len(LANGUAGES), p=[SHARES[g] for g in LANGUAGES])]
        self.language = language
        example = super().draw(rng, longest_s=longest_s, real_share=REAL[language], join=join)
        return replace(example, language=language)

    def _line(self, rng: np.random.Generator, real_share: float) -> dict:
        pool = self.pools[self.language, rng.random() >= real_share]
        return pool[rng.integers(len(pool))]


def make(folder: Path, texts: list[str]) -> tuple[torch.nn.Module, object]:
    """The model with random weights and a throw-away head that spells, and its processor."""
    from transformers import WhisperFeatureExtractor, WhisperProcessor

    tokenizer = whisper_tokenizer([" " + text for text in texts], PIECES, languages=LANGUAGES)
    extractor = WhisperFeatureExtractor(
        feature_size=80, chunk_length=int(WINDOW_S), sampling_rate=RATE_HZ, hop_length=open_whisper.HOP, n_fft=512
    )
    whisper = make_whisper(
        tokenizer,
        longest=80,
        languages=LANGUAGES,
        d_model=WIDTH,
        encoder_layers=8,
        decoder_layers=3,
        encoder_attention_heads=6,
        decoder_attention_heads=6,
        encoder_ffn_dim=4 * WIDTH,
        decoder_ffn_dim=4 * WIDTH,
        max_source_positions=int(WINDOW_S * RATE_HZ) // open_whisper.FRAME,
        mask_time_prob=0.05,
        mask_time_length=6,
        mask_feature_prob=0.05,
        mask_feature_length=8,
    )
    return open_whisper.WithSpelling(whisper, mini_corpus.LETTERS), WhisperProcessor(extractor, tokenizer)


MODULE = SimpleNamespace(
    make=make,
    batch_of=partial(open_whisper.batch_of, characters=mini_corpus.LETTERS),
    loss=open_whisper.loss,
    stock=open_whisper.stock,
)
RECIPE = Recipe(MODULE, STEPS, 12, 1.5e-3, WINDOW_S - 0.1, 0.5, 0.6, save_every=1000)  # type: ignore[arg-type]


def draw_block(speech: ThreeLanguages, recipe: Recipe, seed: int, block: int) -> list[list[Example]]:
    """BLOCK batches."""
    rng = np.random.default_rng([seed, block])
    return [
        [speech.draw(rng, longest_s=recipe.longest_s, real_share=0, join=recipe.join) for _ in range(recipe.batch)]
        for _ in range(BLOCK)
    ]


@torch.no_grad()
def dev_rates(run: Training, speech: ThreeLanguages, each: int = 60) -> str:
    """Word error rate by language on the first dev utterances."""
    whisper, processor = run.averaged.module.eval().whisper, run.processor
    rates = []
    for language in LANGUAGES:
        lines = [line for line in speech.dev if line["language"] == language][:each]
        waves = [speech.samples(line) for line in lines]
        features = processor.feature_extractor(waves, sampling_rate=RATE_HZ, return_tensors="pt").input_features
        ids = whisper.generate(features.to(run.device), language=language, task="transcribe")
        heard = [text.strip() for text in processor.tokenizer.batch_decode(ids, skip_special_tokens=True)]
        rates.append(f"{language} {100 * jiwer.wer([line['text'] for line in lines], heard):.1f} %")
        print("   ", lines[0]["text"], "|", heard[0], flush=True)
    return ", ".join(rates)


def train(work: Path, *, seed: int, to: Extent) -> None:
    """Runs the recipe; the learning rate ends with the steps or the hours, whichever come first."""
    speech, recipe = ThreeLanguages(work), replace(RECIPE, batch=to.batch)
    run = Training(recipe, work / "whisper", speech, seed, to.device)
    print(sum(p.numel() for p in run.model.whisper.parameters()), "parameters, step", run.step, flush=True)
    run.run(partial(draw_block, speech, recipe, seed), partial(dev_rates, speech=speech), to)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    preparing = commands.add_parser("prepare")
    preparing.add_argument("corpus", type=Path)
    preparing.add_argument("work", type=Path)
    training = commands.add_parser("train")
    training.add_argument("work", type=Path)
    add_extent(training)
    for command in (preparing, training):
        command.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.command == "prepare":
        mini_corpus.prepare(given.corpus, given.work, seed=given.seed)
        return
    train(given.work, seed=given.seed, to=extent_of(given, RECIPE))


if __name__ == "__main__":
    main()
