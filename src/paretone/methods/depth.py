"""Layer drop: whole layers go, the rest stays as it is."""

from typing import Literal

from paretone.errors import UserError


def keep_layers(
    name: str,
    depth: int,
    count: int | None,
    *,
    keep: int | None = None,
    layers: list[int] | None = None,
    drop: Literal["last", "middle"] = "last",
    stack: Literal["all", "encoder", "decoder"] = "all",
) -> tuple[int, ...]:
    """The layers that stay, ascending.

    Args:
        name: of the stack, as in "model.encoder.layers".
        depth: layers before.
        count: layers after, from a sparsity or a budget; None where ``keep`` or ``layers`` says it.
        keep: this many layers stay.
        layers: exactly these layers stay.
        drop: ``last`` keeps the first layers; ``middle`` takes the dropped ones out of the middle.
        stack: where layers are dropped; the other stack stays whole.

    Raises:
        UserError: unless exactly one of count, keep and layers is given, and it fits the depth.
    """
    if stack not in ("all", name.split(".")[-2]):
        return tuple(range(depth))
    if sum(given is not None for given in (count, keep, layers)) != 1:
        raise UserError("depth needs one of: a sparsity (or target_params), keep=N, or layers=[0,1,...]")
    if layers is not None:
        if drop != "last" or not layers or len(set(layers)) != len(layers) or not set(layers) <= set(range(depth)):
            raise UserError(
                f"layers={layers}: give each of 0 to {depth - 1} of {name} at most once, one at least, and no drop="
            )
        return tuple(sorted(layers))
    kept = keep if keep is not None else count
    assert kept is not None
    if not 1 <= kept <= depth:
        raise UserError(f"{name} has {depth} layers; {kept} of them can't stay: at least 1, at most {depth}")
    if drop == "last":
        return tuple(range(kept))
    head = (kept + 1) // 2
    return (*range(head), *range(depth - (kept - head), depth))
