"""Allocation by measured errors: sensitivities module by module, on the very data that is then judged.

    python benchmarks/oracle.py RESULTS --model digits-whisper --data digits [--sparsities 0.6 0.7 0.8]

Each module alone is compressed to each of PROBES by the closed form and the whole model measured; the character errors
that this adds (finer than words) stand in for the modelled error in the same allocation. No user can do this, since it
needs transcribed data and looks at the test. It was meant as a ceiling; see docs/log.md for why it is none. Results lie
where benchmarks/ablation.py puts them, as the way "oracle".
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import yaml
from ablation import ORIGINAL, Cell, named

PROBES = (0.5, 0.75, 0.875)
LEAST = 8  # a module keeps one in so many of its rows


def added_errors(model: str, data: str, name: str, width: int, before: int) -> list[float]:
    """Character errors that come with the one module ``name`` at each of ``PROBES``; never falling."""
    errors = []
    for probe in PROBES:
        keep = max(1, round(width * (1 - probe)))
        errors.append(compressed(model, data, {name: keep}, None).character_errors - before)
    return np.maximum.accumulate(np.maximum(errors, 0)).tolist()


def compressed(model: str, data: str, keep: dict[str, int], out: Path | None):
    """The result of the model with the modules in ``keep`` at those widths, the others whole."""
    import paretone

    with tempfile.TemporaryDirectory() as scratch:
        rules = [{"match": name, "keep": units} for name, units in keep.items()]
        recipe = {"steps": [{"method": "closed_form", "rules": rules}]}
        (Path(scratch) / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        paretone.compress(model, Path(scratch) / "model", recipe=Path(scratch) / "recipe.yaml")
        return paretone.evaluate(Path(scratch) / "model", data, out=out, command=["python", "benchmarks/oracle.py"])


def allocated(modules: list[dict], curves: dict[str, list[float]], sparsity: float) -> dict[str, int]:
    """Widths of least added errors that leave ``1 - sparsity`` of the modules' parameters."""
    from paretone.plan.allocation import Choice, least_error

    choices = []
    for module in modules:
        width = module["width"]
        keep = np.arange(width, max(1, width // LEAST) - 1, -1)
        gone = 1 - keep / width
        error = np.interp(gone, [0.0, *PROBES], [0.0, *curves[module["name"]]])
        error = error + 1e-3 * gone  # where nothing was seen to happen, less is still better
        size = keep * (module["parameters"] / width)
        choices.append(Choice((module["name"],), keep, np.zeros_like(keep), size, error))
    budget = (1 - sparsity) * sum(module["parameters"] for module in modules)
    picked = least_error(choices, budget)
    widths = {c.names[0]: int(c.keep[o]) for c, o in zip(choices, picked, strict=True)}
    return {m["name"]: widths[m["name"]] for m in modules if widths[m["name"]] < m["width"]}


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--model", required=True, help="name, or name=path")
    parser.add_argument("--data", required=True, help="name, or name=path")
    parser.add_argument("--sparsities", nargs="+", type=float, default=[0.5, 0.6, 0.7, 0.8])
    given = parser.parse_args()
    import paretone
    from paretone.progress import track
    from paretone.transform import inspect

    (model, model_path), (data, data_path) = named(given.model), named(given.data)
    base = Cell(model, data, ORIGINAL, 0.0).folder(given.root)
    if not base.exists():
        paretone.evaluate(model_path, data_path, out=base, command=["python", "benchmarks/oracle.py"])
    before = json.loads((base / "result.json").read_text())["character_errors"]
    modules = inspect(model_path)["modules"]
    saved = given.root / model / data / "sensitivities.json"
    curves = json.loads(saved.read_text()) if saved.exists() else {}
    for module in track(modules, "probing modules", len(modules)):
        if module["name"] not in curves:
            curves[module["name"]] = added_errors(model_path, data_path, module["name"], module["width"], before)
            saved.write_text(json.dumps(curves, indent=1))
    for sparsity in given.sparsities:
        out = Cell(model, data, "oracle", sparsity).folder(given.root)
        if not out.exists():
            compressed(model_path, data_path, allocated(modules, curves, sparsity), out)


if __name__ == "__main__":
    main()
