"""What a model is made of, from its config and headers."""

from collections import Counter
from typing import Any

from paretone.checkpoint import locate, open_checkpoint
from paretone.families import architecture_of, family_of
from paretone.plan import blueprint_of
from paretone.plan.budget import unit_parameters


def inspect(model: str, *, revision: str | None = None) -> dict[str, Any]:
    """Family, sizes, layers and every module that can shrink; reads no weights."""
    checkpoint = open_checkpoint(locate(model, revision))
    blueprint = blueprint_of(checkpoint, model)
    table = blueprint.table()
    dtypes = Counter(entry.dtype for entry in checkpoint.entries.values())
    return {
        "model": model,
        "folder": str(checkpoint.folder),
        "family": family_of(checkpoint.config, model).MODEL_TYPE,
        "architecture": architecture_of(checkpoint.config),
        "dtype": dtypes.most_common(1)[0][0],
        "parameters": blueprint.parameters,
        "size_bytes": blueprint.size_bytes,
        "macs": blueprint.macs,
        "reference": table.reference,
        "stacks": [{"name": stack.name, "layers": stack.depth} for stack in table.stacks],
        "modules": [
            {
                "name": group.name,
                "kind": group.kind,
                "width": group.width,
                "parameters": unit_parameters(group, blueprint.shapes) * group.width,
            }
            for group in table.groups
        ],
    }
