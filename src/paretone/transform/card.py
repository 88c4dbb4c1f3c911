"""The model card of a compressed checkpoint."""

from paretone.plan import Plan, StepPlan

LOADS_PLAIN = """```python
from transformers import {auto}

model = {auto}.from_pretrained("PATH")  # no package of ours is needed
```"""
LOADS_MIXED = """Its modules have widths of their own, which the stock class has no fields for:

```python
import paretone  # then plain transformers knows the widths
from transformers import {auto}

model = {auto}.from_pretrained("PATH")
```

On a machine without paretone: `{auto}.from_pretrained("PATH", trust_remote_code=True)`, which runs
`modeling_paretone.py` of this folder. Without either, transformers refuses to load it."""
AUTO = {"ForCTC": "AutoModelForCTC", "ForConditionalGeneration": "AutoModelForSpeechSeq2Seq"}


def model_card(plan: Plan, *, architecture: str, is_mixed: bool, command: str, notices: list[str]) -> str:
    """README.md: what was done, what is smaller, how to load it, and that the price must be measured."""
    auto = next((name for end, name in AUTO.items() if architecture.endswith(end)), "AutoModel")
    rows = [
        ("parameters", plan.parameters_before, plan.parameters_after),
        ("bytes of weights", plan.bytes_before, plan.bytes_after),
        (f"multiply-accumulates ({plan.reference})", plan.macs_before, plan.macs_after),
    ]
    table = "\n".join(f"| {name} | {a:,} | {b:,} | {b / a:.1%} |" for name, a, b in rows)
    steps = "\n".join(f"{i}. {_step(s)}" for i, s in enumerate(plan.steps, start=1))
    base = f"base_model: {plan.source}\n" if plan.source.count("/") == 1 and not plan.source.startswith(".") else ""
    notes = "".join(f"\n- {notice}" for notice in notices)
    return f"""---
library_name: transformers
pipeline_tag: automatic-speech-recognition
{base}tags:
- paretone
- compressed
---

# {plan.source.rstrip("/").split("/")[-1]}, compressed

Made {_without(plan)} by [Paretone](https://pypi.org/project/paretone/) from `{plan.source}`:

{steps}

| | before | after | |
|---|---:|---:|---:|
{table}

The exact widths of all modules are in `plan.json`, where it came from in `provenance.json`. Made by:

```
{command}
```
{notes}
## Loading

{(LOADS_MIXED if is_mixed else LOADS_PLAIN).format(auto=auto)}

## What it costs

Not measured here. Measure it on your own speech before you use it, both models in one run:

```
paretone evaluate PATH --data DATA --baseline {plan.source}
```
"""


def _without(plan: Plan) -> str:
    tiers = list(dict.fromkeys(step.tier for step in plan.steps if step.tier != "data-free"))
    if not tiers:
        return "without data and without training (data-free)"
    return f"without training, {', '.join(map(_told, tiers))},"


def _told(tier: str) -> str:
    return f"fitted to what it computes on synthetic sound ({tier})" if tier == "synthetic-probe" else tier


def _step(step: StepPlan) -> str:
    units = "" if step.units == "all" else f" on {step.units}"
    allocation = f", allocation {step.allocation}" if step.modules else ""
    return f"`{step.method}`{units}{_asked(step)}{allocation}, settings {_settings(step.settings)}"


def _asked(step: StepPlan) -> str:
    if step.sparsity is not None:
        return f" at sparsity {step.sparsity:g}"
    targets = {"parameters": step.target_params, "bytes": step.target_bytes, "MACs": step.target_macs}
    return "".join(f" to {share:g} of the {what}" for what, share in targets.items() if share is not None)


def _settings(settings: dict[str, object]) -> str:
    return ", ".join(f"`{key}={value}`" for key, value in settings.items()) or "none"
