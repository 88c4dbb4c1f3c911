"""The paper's systems have the sizes that arXiv 2603.27981 gives or implies; counted without allocating any weights."""

import runpy
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        return runpy.run_path(str(BENCHMARKS / "slam_full_size.py"))["sizes"]()


def test_the_language_model_and_its_adapters_have_the_papers_sizes(found: dict[str, Any]) -> None:
    assert round(found["language_model"] / 1e9, 3) == 3.086
    assert {rank: round(size / 1e6, 2) for rank, size in found["lora"].items()} == {8: 3.69, 16: 7.37}


@pytest.mark.parametrize(
    ("name", "projector", "of_front", "of_system"),
    [
        ("whisper-small", 12.07, 14.1, 0.44),
        ("whisper-medium", 14.69, 7.8, 0.74),
        ("whisper-large-v2", 17.31, 6.0, 1.05),
    ],
)
def test_two_layers_are_the_papers_share_of_each_sum(
    found: dict[str, Any], name: str, projector: float, of_front: float, of_system: float
) -> None:
    """Percent of encoder + projector, and of the system without adapters."""
    system = found["systems"][name]
    assert round(system["projector"] / 1e6, 2) == projector
    assert round(100 * system["gone_of_front"], 1) == of_front
    assert round(100 * system["gone_of_system"], 2) == of_system


@pytest.mark.parametrize(
    ("name", "size", "layers"),
    [("whisper-small", 768, 12), ("whisper-medium", 1024, 24), ("whisper-large-v2", 1280, 32)],
)
def test_encoders_are_counted_as_by_hand(found: dict[str, Any], name: str, size: int, layers: int) -> None:
    """No key bias, an FFN four times as wide, two norms a layer; two convolutions, 1500 positions, one norm more."""
    layer = 4 * size**2 + 3 * size + 8 * size**2 + 5 * size + 4 * size
    front = 3 * 80 * size + size + 3 * size**2 + size + 1500 * size
    system = found["systems"][name]
    assert system["gone"] == 2 * layer
    assert system["encoder"] == front + layers * layer + 2 * size
