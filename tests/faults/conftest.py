"""Whatever a test of a fault has started is ended with it, passed or failed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults import driver


@pytest.fixture(autouse=True)
def _no_driver_is_left() -> Iterator[None]:
    yield
    driver.end_all()
