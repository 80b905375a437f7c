import errno

import pytest

from core.runs.failures import UNKNOWN_HINT, explain


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "smaller batch"),
        (MemoryError(), "smaller batch"),
        (OSError(errno.ENOSPC, "No space left on device"), "Free some space"),
        (RuntimeError("unable to write: No space left on device (os error 28)"), "Free some space"),
        (FloatingPointError("loss is nan"), "lower learning rate"),
        (RuntimeError("Torch not compiled with CUDA enabled"), "device auto or cpu"),
        (ModuleNotFoundError("No module named 'lm_eval'"), "requirements.txt"),
        (ConnectionError("refused"), "network"),
        (KeyError("oops"), UNKNOWN_HINT),
    ],
)
def test_a_known_cause_comes_with_its_remedy(error: Exception, words: str):
    failure = explain(error)
    assert words in failure["hint"]
    assert failure["type"] == type(error).__name__
    assert failure["message"]
