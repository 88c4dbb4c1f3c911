"""Which layers of an encoder stay."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paretone.data import RATE_HZ, open_data, read_audio
from paretone.errors import UserError
from paretone.model import load
from paretone.model.slam.assembly import audio_extractor
from paretone.model.slam.encoders import encode, layers_of
from paretone.model.slam.processing import audio_inputs
from paretone.progress import track
from paretone.train.slam.recipe import Encoder, Similar


def kept_layers(encoder: Encoder, there: int, pad_to_window: bool) -> list[int]:
    """Numbers of the layers that stay of ``there``.

    Raises:
        UserError: if more are asked to go, or to stay, than there are.
    """
    every = list(range(there))
    if encoder.keep is not None:
        if encoder.keep > there:
            raise UserError(f"encoder.keep is {encoder.keep}; {encoder.model} has {there} layers, so give 1 to {there}")
        return every[: encoder.keep]
    if encoder.drop is not None:
        wrong = sorted({i for i in encoder.drop if i >= there})
        if wrong or len(set(encoder.drop)) >= there:
            given = wrong[0] if wrong else list(encoder.drop)
            raise UserError(f"encoder.drop: {given}; {encoder.model} has layers 0 to {there - 1}, and one must stay")
        return [i for i in every if i not in encoder.drop]
    count = encoder.drop_middle or (encoder.drop_similar.layers if encoder.drop_similar else 0)
    if count >= there:
        raise UserError(f"encoder: {count} layers can't go; {encoder.model} has {there}, and one must stay")
    if encoder.drop_middle is not None:
        first = (there - count + 1) // 2
        return every[:first] + every[first + count :]
    if encoder.drop_similar is not None:
        distances = angular_distances(encoder, encoder.drop_similar, pad_to_window)
        gone = sorted(every, key=lambda i: (distances[i], i))[:count]
        return [i for i in every if i not in gone]
    return every


@torch.inference_mode()
def angular_distances(encoder: Encoder, similar: Similar, pad_to_window: bool) -> list[float]:
    """For each layer, how far it turns what passes through it: mean angle between input and output over pi.

    Source: arXiv 2403.17887, equation 7, for blocks of one layer and over all positions.

    Raises:
        UserError: if the model or the audio can't be used.
    """
    whole, processor = load(encoder.model, revision=encoder.revision, dtype="float32")
    base: Any = whole.base_model
    tower = base.encoder if base.config.model_type == "whisper" else base
    extractor = audio_extractor(processor, pad_to_window)
    found = open_data(similar.data, limit=similar.limit, labelled=False)
    layers = layers_of(tower)
    sums, positions = torch.zeros(len(layers), dtype=torch.float64), 0
    turned: dict[int, Tensor] = {}
    hooks = [layer.register_forward_hook(_watching(i, turned)) for i, layer in enumerate(layers)]
    try:
        for utterance in track(found.utterances, "hearing how layers turn", total=len(found.utterances)):
            wave = read_audio(utterance.audio, name=utterance.name)[: 30 * RATE_HZ]
            inputs = audio_inputs(extractor, [wave], RATE_HZ)
            encode(tower, inputs["input_features" if "input_features" in inputs else "input_values"])
            sums += torch.stack([turned[i].sum().double() for i in range(len(layers))])
            positions += turned[0].numel()
    finally:
        for hook in hooks:
            hook.remove()
    return (sums / positions / math.pi).tolist()


def _watching(number: int, turned: dict[int, Tensor]) -> Any:
    def hook(layer: nn.Module, given: Sequence[Any], output: Any) -> None:
        after = output[0] if isinstance(output, tuple) else output
        cosine = nn.functional.cosine_similarity(given[0].float(), after.float(), dim=-1)
        turned[number] = torch.arccos(cosine.clamp(-1, 1))

    return hook
