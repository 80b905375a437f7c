"""A device is picked only if it is there."""

import pytest
import torch

from core.errors import UserError
from core.model.device import default_dtype, pick


def test_the_processor_computes_in_float32() -> None:
    assert default_dtype(pick("cpu")) == torch.float32


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "CPU"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="cpu"):
        pick(name)
