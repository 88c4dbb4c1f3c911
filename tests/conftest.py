"""Fixtures that several test files share."""

import gc
from collections.abc import Iterator

import pytest
import torch


def pytest_collection_finish() -> None:
    """Modules are not looked through for garbage, which whatever is measured begins with: 0.2 s each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread, as results depend on their number in the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
