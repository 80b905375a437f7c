"""Peers' own packages on a tiny model: they keep as many neurons as asked for, and the formulas written down here agree with them."""

import numpy as np
import pytest
import torch

from bench.peers import optipfair, packages
from bench.peers.ground import Ground
from core.plan.plan import top
from core.specs import RankSpec
from tests.bench.tiny import tiny_ground

needs_packages = pytest.mark.skipif(not packages.ENVIRONMENT.is_dir(), reason="the peers' packages are not here: make bench-peers")


@pytest.fixture
def ground() -> Ground:
    return tiny_ground(6, 32)


@needs_packages
@pytest.mark.parametrize("name", ["optipfair", "torch_pruning", "modelopt"])
def test_a_package_keeps_as_many_neurons_as_were_asked_for(name: str, ground: Ground) -> None:
    kept_LF = packages.chosen(name, ground.model, ground.blocks.calibration_NT, 22)
    assert kept_LF.shape == (5, 22)
    assert (np.diff(kept_LF) > 0).all()
    assert not np.array_equal(kept_LF[0], kept_LF[1])


@needs_packages
def test_optipfair_s_formula_chooses_what_its_package_chooses(ground: Ground) -> None:
    targets = ground.ffn_for(0.15)
    kept_LF = packages.chosen("optipfair", ground.model, ground.blocks.calibration_NT, targets.intermediate_size or 0)
    read: list[torch.Tensor] = []
    with optipfair.by_formula(ground, 0.15).apply(), torch.no_grad():
        for layer in ground.layers():
            layer.mlp.down_proj.register_forward_hook(lambda _, args, output: read.append(args[0].abs().sum((0, 1))))
        ground.model(ground.calibration_NT)
    assert [row.nonzero().flatten().tolist() for row in read] == kept_LF.tolist()


@needs_packages
def test_modelopt_s_hook_is_the_criterion_channel_contribution(ground: Ground) -> None:
    kept_LF = packages.chosen("modelopt", ground.model, ground.blocks.calibration_NT, 17)
    ours_LF = ground.scores().importance("neurons", RankSpec(neurons="channel_contribution"))
    assert np.array_equal(kept_LF, top(ours_LF, 17))


def test_without_the_environment_the_row_says_so(ground: Ground, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(packages, "ENVIRONMENT", packages.ROOT / "no such folder")
    with pytest.raises(packages.NotInstalled, match="make bench-peers"):
        packages.optipfair(ground, 0.15)
