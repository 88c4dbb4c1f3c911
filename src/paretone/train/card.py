"""The model card of a fine-tuned checkpoint."""

import re
from collections.abc import Mapping
from typing import Any


def training_card(record: Mapping[str, Any], earlier: str | None, *, is_ours: bool) -> str:
    """README.md: what it was trained on and how, and that the price must be measured on other recordings.

    Args:
        record: the content of training.json.
        earlier: the source's card. Its licence is carried over; the rest only where it ``is_ours``, since what others
            claim of their model need not hold for this one.
    """
    source = str(record["model"]["name"])
    front, body = _split(earlier or "")
    licence = "".join(f"{line}\n" for line in front if line.startswith(("license", "language")))
    is_hub_id = source.count("/") == 1 and not source.startswith((".", "/"))
    base = f"base_model: {source}\n" if is_hub_id else ""
    compressed = "- compressed\n" if "- compressed" in front else ""
    data, dev = record["data"], record["dev"]
    thanks = f"\n{data['attribution']}\n" if data["attribution"] else ""
    before = f"\n## Before fine-tuning\n\n{_deeper(body)}\n" if is_ours and body else ""
    return f"""---
library_name: transformers
pipeline_tag: automatic-speech-recognition
{licence}{base}tags:
- paretone
- fine-tuned
{compressed}---

# {source.rstrip("/").split("/")[-1]}, fine-tuned

Trained by [Paretone](https://pypi.org/project/paretone/) from `{source}` on {record["samples"]} recordings of
`{data["name"]}` ({data["audio_s"] / 3600:.2f} hours).
{thanks}
| | |
|---|---:|
{_table(record)}

{_kept(record, dev)} The whole record is `training.json`. Made by:

```
{record["command"]}
```

## Loading

As `{source}`: it has the same shapes and the same files.

## What it costs

Measure it on recordings that it was not trained on, both models in one run:

```
paretone evaluate PATH --data DATA --baseline {source}
```
{before}"""


def _split(card: str) -> tuple[list[str], str]:
    """The lines of the front matter, and the rest."""
    match = re.fullmatch(r"---\n(.*?)\n---\n(.*)", card, flags=re.DOTALL)
    return (match[1].split("\n"), match[2].strip()) if match else ([], card.strip())


def _deeper(body: str) -> str:
    """Every heading one level down; lines of code that begin with # are none."""
    lines, in_code = [], False
    for line in body.split("\n"):
        in_code ^= line.startswith("```")
        lines.append(f"#{line}" if line.startswith("#") and not in_code else line)
    return "\n".join(lines)


def _table(record: Mapping[str, Any]) -> str:
    settings = record["settings"]
    rows = {
        "epochs": settings["epochs"],
        "updates": record["updates"],
        "utterances in an update": settings["batch"] * settings["accumulate"],
        "learning rate (AdamW, highest)": settings["learning_rate"],
        "front end frozen": "yes" if settings["freeze_front_end"] else "no",
        "precision": settings["precision"],
        "seed": settings["seed"],
    }
    return "\n".join(f"| {name} | {value} |" for name, value in rows.items())


def _kept(record: Mapping[str, Any], dev: Mapping[str, Any] | None) -> str:
    if dev is None:
        return "These are the weights after the last update."
    return (
        f"These are the weights after update {record['best_update']}, which had the lowest WER on `{dev['name']}`: "
        f"{record['dev_wer']:.2%}."
    )
