"""Minitron (Muralidharan et al., arXiv 2407.14679): activation importance, deletion only, from Coppice's own scores."""

from bench.peers.ground import Cut, Ground
from core.specs import RankSpec, Targets

PAPER = RankSpec(heads="activation", neurons="activation", channels="activation", depth="bi", batch="l2", sequence="mean")
DROPPED_LAYERS = 4


def ffn(ground: Ground, share: float) -> Cut:
    """Neurons only."""
    return ground.selection(ground.keep(ground.ffn_for(share), ground.scores(), PAPER))


def ffn_and_groups(ground: Ground, share: float) -> Cut:
    """One key-value group less, the rest from neurons."""
    sizes = {"num_key_value_heads": ground.dims.kv_heads - 1, "num_attention_heads": ground.dims.heads - ground.dims.group}
    return ground.selection(ground.keep(ground.ffn_for(share, **sizes), ground.scores(), PAPER))


def depth_and_ffn(ground: Ground, share: float) -> Cut:
    """The four layers of least block importance, the rest from neurons."""
    targets = ground.ffn_for(share, num_hidden_layers=ground.dims.layers - DROPPED_LAYERS)
    return ground.selection(ground.keep(targets, ground.scores(), PAPER))


def depth(ground: Ground, share: float) -> Cut:
    """Whole layers by block importance (ShortGPT, arXiv 2403.03853): as many as come closest to the budget."""
    choices = [Targets(num_hidden_layers=layers) for layers in range(1, ground.dims.layers)]
    targets = min(choices, key=lambda targets: abs(ground.parameters(targets) - ground.budget(share)))
    return ground.selection(ground.keep(targets, ground.scores(), PAPER))
