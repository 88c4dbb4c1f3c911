"""Speech LLMs at full size: whether they hold together, and what the paper's systems weigh.

    python benchmarks/slam_full_size.py wiring WORK  two steps, one generation of Whisper-small, Qwen2.5-0.5B (1.5 GB)
    python benchmarks/slam_full_size.py sizes        parameters of the paper's systems, counted on the meta device

All weights are random, recordings noise. Wall-clock seconds depend on what else the machine does, so processor seconds
stand beside them. The last line printed is one JSON object. Set OMP_NUM_THREADS to say how many cores are used.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from slam_parts import QWEN, QWEN_05B, RATE_HZ, make_tokenizer, noise, save_qwen, save_whisper, timed

from paretone.memory import peak_rss_bytes, reset_peak_rss

# arXiv 2603.27981, section 1, and the model cards of the parts
ENCODERS = {"whisper-small": (768, 12), "whisper-medium": (1024, 24), "whisper-large-v2": (1280, 32)}
QWEN_3B = {**QWEN, "hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "intermediate_size": 11008}
# millions of parameters of the projector; percent of encoder + projector and of the system in the last two layers
SPEC = {
    "whisper-small": (12.07, 14.1, 0.44),
    "whisper-medium": (14.69, 7.8, 0.74),
    "whisper-large-v2": (17.31, 6.0, 1.05),
}
SPEC_LANGUAGE_MODEL, SPEC_LORA = 3.086, {8: 3.69, 16: 7.37}  # billions; millions by rank


def whisper_shape(name: str) -> dict[str, int]:
    """Configuration fields of one of ``ENCODERS``."""
    size, layers = ENCODERS[name]
    parts = ("encoder", "decoder")
    fields = {f"{part}_layers": layers for part in parts}
    fields |= {f"{part}_attention_heads": size // 64 for part in parts}
    fields |= {f"{part}_ffn_dim": 4 * size for part in parts}
    return {"d_model": size, **fields}


def make_full_size(work: Path) -> tuple[Path, Path]:
    """Folders of a Whisper-small and a Qwen2.5-0.5B with random weights, written the first time."""
    encoder, language_model = work / "whisper-small", work / "qwen-0.5b"
    torch.manual_seed(0)
    if not (encoder / "tokenizer_config.json").exists():
        save_whisper(encoder, **whisper_shape("whisper-small"))
    if not (language_model / "tokenizer.json").exists():
        save_qwen(language_model, make_tokenizer([], 257), torch.bfloat16, QWEN_05B)
    return encoder, language_model


def wiring(given: argparse.Namespace) -> dict[str, Any]:
    """Two training steps and one generation of a full-size system, in float32 as every training on a CPU."""
    from paretone.model.slam.adapters import Lora
    from paretone.model.slam.assembly import new_slam

    encoder, language_model = make_full_size(given.work)
    record: dict[str, Any] = {"what": "wiring", "threads": torch.get_num_threads()}
    reset_peak_rss()
    with timed(record, "load"):
        model, processor = new_slam(str(encoder), str(language_model), lora=Lora(), dtype="float32")
    record["load_peak_gb"] = peak_gb()
    record["parts"] = dict(model.part_sizes())
    record["parts"]["adapters"] = sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)
    record["parts"]["language_model"] -= record["parts"]["adapters"]
    reset_peak_rss()
    steps(model, processor, record)
    record["step_peak_gb"] = peak_gb()
    heard = processor([noise(10.0, 0)], sampling_rate=RATE_HZ)
    reset_peak_rss()
    with timed(record, "generate"):
        answer = model.eval().generate(**heard, min_new_tokens=20, max_new_tokens=20)
    record["generate_peak_gb"], record["generated"] = peak_gb(), answer.shape[1]
    for name, size in record["parts"].items():
        print(f"{name}: {size / 1e6:.2f} M parameters")
    for name in ("load", "first_step", "second_step", "generate"):
        print(f"{name}: {record[name + '_s']} s, {record[name + '_cpu_s']} of them computing")
    return record


def steps(model: Any, processor: Any, record: dict[str, Any]) -> None:
    """Two steps on 10 s of noise, the first of which touches memory for the first time; the loss must be a number.

    Everything that is to be trained must have moved then, and nothing else may have a gradient.
    """
    moving = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(moving.values(), lr=1e-4, weight_decay=0.01)
    before = {name: p.detach().clone() for name, p in moving.items()}
    batch = processor([noise(10.0, 0)], ["they said that it would rain in the afternoon"], sampling_rate=RATE_HZ)
    model.train()
    record["losses"] = []
    for number in ("first", "second"):
        with timed(record, f"{number}_step"):
            with timed(record, f"{number}_forward"):
                loss = model(**batch).loss
            with timed(record, f"{number}_backward"):
                loss.backward()
            with timed(record, f"{number}_update"):
                optimizer.step()
                optimizer.zero_grad(set_to_none=False)
        record["losses"].append(float(loss.detach()))
    assert np.isfinite(record["losses"]).all()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == set(moving)
    assert not any(torch.equal(before[name], p) for name, p in moving.items())


def peak_gb() -> float:
    """Of resident memory since the last reset."""
    return round(peak_rss_bytes() / 1e9, 2)


def sizes(_: argparse.Namespace | None = None) -> dict[str, Any]:
    """Parameters of the paper's systems, whole and without the last two layers, beside what the spec says."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with torch.device("meta"):
        language_model = Qwen2ForCausalLM(Qwen2Config(**QWEN_3B))
        systems = {name: counted(name, language_model) for name in ENCODERS}
        lora = {rank: lora_size(language_model, rank) for rank in SPEC_LORA}
    found = {"what": "sizes", "language_model": count(language_model), "systems": systems, "lora": lora}
    print(f"language model {found['language_model'] / 1e9:.3f} B (spec {SPEC_LANGUAGE_MODEL})")
    for rank, size in lora.items():
        print(f"LoRA r={rank} {size / 1e6:.2f} M (spec {SPEC_LORA[rank]})")
    for name, system in systems.items():
        projector, of_front, of_system = SPEC[name]
        print(
            f"{name}: encoder {system['encoder'] / 1e6:.2f} M, projector {system['projector'] / 1e6:.2f} M "
            f"(spec {projector}), both {system['front'] / 1e6:.2f} M, system {system['system'] / 1e9:.3f} B; last two "
            f"layers {100 * system['gone_of_encoder']:.1f} % of the encoder, {100 * system['gone_of_front']:.2f} % of "
            f"encoder + projector (spec {of_front}), {100 * system['gone_of_system']:.3f} % of the system "
            f"(spec {of_system})"
        )
    return found


def counted(name: str, language_model: Any) -> dict[str, float]:
    """Parameters of a system, and the share of each sum that goes with the last two layers of the encoder."""
    whole, cut = (system(name, language_model, gone).part_sizes() for gone in (0, 2))
    gone = whole["encoder"] - cut["encoder"]
    front = whole["encoder"] + whole["projector"]
    everything = front + whole["language_model"]
    return {
        "encoder": whole["encoder"],
        "projector": whole["projector"],
        "front": front,
        "system": everything,
        "gone": gone,
        "gone_of_encoder": gone / whole["encoder"],
        "gone_of_front": gone / front,
        "gone_of_system": gone / everything,
    }


def system(name: str, language_model: Any, gone: int) -> Any:
    """A speech LLM around an encoder without its last ``gone`` layers."""
    from transformers import WhisperConfig, WhisperModel

    from paretone.model.slam.configuration import SlamAsrConfig
    from paretone.model.slam.encoders import cut_tower
    from paretone.model.slam.modeling import SlamAsrForConditionalGeneration

    shape = WhisperConfig(**whisper_shape(name))
    tower = cut_tower(WhisperModel(shape), range(shape.encoder_layers - gone))
    config = SlamAsrConfig(audio_config=tower.config, text_config=language_model.config, prompt_ids=[0])
    return SlamAsrForConditionalGeneration(config, audio_tower=tower, language_model=language_model)


def lora_size(language_model: Any, rank: int) -> int:
    """Parameters of the paper's adapters of a rank."""
    import copy

    from paretone.model.slam.adapters import Lora, add_lora

    adapted = copy.deepcopy(language_model)
    add_lora(adapted, Lora(r=rank, alpha=2 * rank))
    return sum(p.numel() for name, p in adapted.named_parameters() if "lora_" in name)


def count(module: torch.nn.Module) -> int:
    """Parameters, tied ones once."""
    return sum(p.numel() for p in module.parameters())


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for measure in (wiring, sizes):
        command = commands.add_parser(measure.__name__, help=(measure.__doc__ or "").split("\n")[0])
        command.set_defaults(measure=measure)
        if measure is wiring:
            command.add_argument("work", type=Path)
    given = parser.parse_args()
    print(json.dumps(given.measure(given)))


if __name__ == "__main__":
    main()
