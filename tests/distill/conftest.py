"""Every training ends with full garbage collections, which are slow while all of torch's imports are among the garbage."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def imports_are_no_garbage() -> Iterator[None]:
    import core.distill.trainer  # noqa: F401

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
