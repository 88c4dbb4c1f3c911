"""The main road's middle: a checkpoint and a plan become a smaller checkpoint."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretone.checkpoint import Checkpoint, locate, open_checkpoint
from paretone.families import architecture_of
from paretone.folders import check_apart, check_new_folder, new_folder
from paretone.memory import peak_rss_bytes
from paretone.model import REMOTE_CODE
from paretone.plan import Analyses, Plan, Recipe, plan_of, resolve
from paretone.plan.resolve import blueprint_of
from paretone.transform.calibrate import Heard, asked_of, heard, write_calibration
from paretone.transform.card import model_card
from paretone.transform.config import new_config, new_generation_config
from paretone.transform.execute import Known, write_weights
from paretone.transform.findings import Findings
from paretone.version import __version__

OURS = ("plan.json", "provenance.json")
NOT_CARRIED = ("plan.json", "provenance.json", "README.md", "config.json", "generation_config.json")


@dataclass(frozen=True)
class Compressed:
    """What ``compress`` did; ``notices`` are for the user's eye."""

    out: Path
    plan: Plan
    seconds: float
    peak_rss_bytes: int
    notices: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """The object that ``compress --json`` prints."""
        return {
            "out": str(self.out),
            "parameters_before": self.plan.parameters_before,
            "parameters_after": self.plan.parameters_after,
            "size_bytes_before": self.plan.bytes_before,
            "size_bytes_after": self.plan.bytes_after,
            "macs_before": self.plan.macs_before,
            "macs_after": self.plan.macs_after,
            "seconds": self.seconds,
            "peak_rss_bytes": self.peak_rss_bytes,
            "notices": list(self.notices),
            "plan": self.plan.model_dump(mode="json"),
        }


def make_plan(model: str, how: Recipe | Plan, *, revision: str | None = None) -> Plan:
    """The plan of a recipe for ``model``; a plan is checked against the model and its sizes worked out anew."""
    checkpoint = open_checkpoint(locate(model, revision))
    with heard(checkpoint, asked_of(how, only_weighing=True)) as found:
        return _planned(checkpoint, how, model, {}, found)


def compress(
    model: str,
    out: str | Path,
    how: Recipe | Plan,
    *,
    revision: str | None = None,
    overwrite: bool = False,
    command: str | None = None,
    findings: Findings | None = None,
) -> Compressed:
    """Writes the compressed ``model`` to the folder ``out``, which appears only when it is complete.

    Equal input, plan and seed give equal bytes. The model is never built; see ``write_weights`` for the memory.

    Args:
        model: folder, hub id or embedded name.
        how: a recipe, or a plan made for a model of the same names and widths.
        command: what to record as the way to make it.
        findings: as `find_out` makes them under the settings of the first step, where they are at hand; they save time
            and change no byte.

    Raises:
        UserError: for anything wrong with the model, the recipe or ``out``; then nothing is written.
    """
    started, out = time.monotonic(), Path(out)
    folder = locate(model, revision)
    check_apart(folder, out)
    check_new_folder(out, overwrite=overwrite, ours=OURS)
    checkpoint = open_checkpoint(folder)
    findings = findings or Findings({}, {})
    # both are about modules as they are in the source, so for the first step alone
    analyses: Analyses = {(1, name): each for name, each in findings.analyses.items()}
    trees = {(1, name): each for name, each in findings.trees.items()}
    with heard(checkpoint, asked_of(how, only_weighing=False)) as found:
        plan = _planned(checkpoint, how, model, analyses, found)
        with new_folder(out, overwrite=overwrite, ours=OURS) as partial:
            plan = plan.model_copy(update={"source_digest": checkpoint.digest()})
            notices = _notices(plan)
            command = command or f"paretone compress {model} OUT"
            known = Known(analyses, trees, found.materials)
            notices += _write_all(checkpoint, plan, partial, revision, command, known)
            if found.data:
                write_calibration(checkpoint, found.data, partial)
    peak = peak_rss_bytes()
    return Compressed(out, plan, time.monotonic() - started, peak, tuple(notices))


def _planned(checkpoint: Checkpoint, how: Recipe | Plan, source: str, analyses: Analyses, found: Heard) -> Plan:
    if isinstance(how, Recipe):
        return resolve(checkpoint, how, source=source, analyses=analyses, materials=found.materials)
    return plan_of(blueprint_of(checkpoint, source), how.steps, source)


def _notices(plan: Plan) -> list[str]:
    """What the user may not have meant: a sparsity too small to drop a layer."""
    return [
        f"sparsity {step.sparsity:g} drops no layer of {layers.name}, which has {layers.depth}"
        for step in plan.steps
        for layers in step.layers
        if step.sparsity
        and len(layers.keep) == layers.depth
        and step.settings.get("stack", "all") in layers.name + " all"
    ]


def _write_all(
    checkpoint: Checkpoint, plan: Plan, partial: Path, revision: str | None, command: str, known: Known
) -> list[str]:
    outcome = write_weights(checkpoint, plan, partial, known)
    config = new_config(checkpoint.config, outcome)
    notices = _copy_side_files(checkpoint, plan, outcome, partial)
    if config.is_mixed:
        shutil.copyfile(REMOTE_CODE, partial / REMOTE_CODE.name)
    else:
        (partial / REMOTE_CODE.name).unlink(missing_ok=True)
    _write_json(partial / "config.json", config.content)
    (partial / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    provenance = {
        "source": plan.source,
        "revision": revision,
        "source_digest": plan.source_digest,
        "paretone": __version__,
        "seeds": sorted({step.seed for step in plan.steps}),
        "learnt_from": list(dict.fromkeys(step.tier for step in plan.steps)),
        "command": command,
    }
    _write_json(partial / "provenance.json", provenance)
    card = model_card(
        plan,
        architecture=architecture_of(checkpoint.config),
        is_mixed=config.is_mixed,
        command=command,
        notices=notices,
    )
    (partial / "README.md").write_text(card, encoding="utf-8")
    return notices


def _copy_side_files(checkpoint: Checkpoint, plan: Plan, outcome: Any, partial: Path) -> list[str]:
    """Tokenizer and processor files as they are; the generation config follows its heads."""
    notices: list[str] = []
    for path in sorted(checkpoint.folder.iterdir()):
        is_text = path.suffix in (".json", ".txt", ".model", ".jinja", ".py")
        if path.name == "generation_config.json":
            generation = json.loads(path.read_text(encoding="utf-8"))
            generation, notices = new_generation_config(generation, plan, outcome)
            _write_json(partial / path.name, generation)
        elif path.is_file() and is_text and path.name not in NOT_CARRIED and ".safetensors" not in path.name:
            shutil.copyfile(path, partial / path.name)
    return notices


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
