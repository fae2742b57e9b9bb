"""What holds for every test."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_seed() -> None:
    """A test draws the same numbers whenever it runs, and whichever tests ran before it."""
    torch.manual_seed(0)
