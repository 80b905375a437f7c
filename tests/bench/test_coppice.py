"""Coppice's recipes as the bench runs them: of the size that was asked for, and the uncut model stays as it was."""

import pytest
import torch

from bench import coppice
from tests.bench.tiny import tiny_ground


@pytest.mark.parametrize("name", [name for name in coppice.RECIPES if "four layers" not in name])
def test_a_recipe_gives_a_model_of_the_size_that_was_asked_for_and_leaves_the_uncut_one_alone(name: str) -> None:
    ground = tiny_ground(8, 32)
    with torch.no_grad():
        whole = ground.model(ground.calibration_NT).logits
        cut = coppice.RECIPES[name](ground, 0.15)
        assert cut.parameters == pytest.approx(ground.budget(0.15), rel=0.02)
        with cut.apply() as model:
            assert not torch.allclose(model(ground.calibration_NT).logits, whole, atol=1e-3)
        torch.testing.assert_close(ground.model(ground.calibration_NT).logits, whole, rtol=0, atol=0)
