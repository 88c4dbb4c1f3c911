"""What a way costs, and which ways no other one beats."""

from collections.abc import Sequence

from paretone.results import Result

ENCODER, HEARING, WHOLE = "encoder", "encoder + projector", "whole"


def sizes_of(result: Result) -> dict[str, int]:
    """Parameters by denominator: of the encoder, of encoder and projector, of the whole; the whole alone without parts.

    A share of parameters means little without its denominator: half of an encoder may be a tenth of a speech LLM.
    """
    parts = result.parts
    sizes = {}
    if "encoder" in parts:
        sizes[ENCODER] = parts["encoder"]
        if "projector" in parts:
            sizes[HEARING] = parts["encoder"] + parts["projector"]
    return {**sizes, WHOLE: result.parameters}


def front_of(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points (cost, error) that no other beats, cheapest first.

    One beats another where it is no worse in both and better in one. Equal points stay together.
    """
    order = sorted(range(len(points)), key=lambda place: (points[place], place))
    kept: list[int] = []
    for place in order:
        best = points[kept[-1]] if kept else None
        if best is None or points[place][1] < best[1] or points[place] == best:
            kept.append(place)
    return kept
