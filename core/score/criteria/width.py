"""Criteria for heads ``[L, H]``, neurons ``[L, F]`` and embedding channels ``[D]``, from stored moments and norms.

Arrays carry their axes in their names: L layers, N normalisations, H heads, Q = H x head_dim, F neurons, D channels.
"""

import numpy as np

from core.score.aggregate import aggregate, pooled_square, pooled_variance
from core.score.criteria.registry import Measured, criterion
from core.specs import RankSpec

WIDTH = ("heads", "neurons", "channels")
MINITRON = "Minitron, arXiv 2407.14679, section 2.2"


def _aggregated(measured: Measured, site: str, rank: RankSpec, pass_name: str = "activations") -> np.ndarray:
    moments, count = measured.moments(site, pass_name)
    return aggregate(moments, count, batch=rank.batch, sequence=rank.sequence)


def _per_unit(axis: str, measured: Measured, values: np.ndarray) -> np.ndarray:
    """Values of columns ``[places, columns]`` as values of units: a head sums its columns, a channel its normalisations."""
    if axis == "heads":
        return values.reshape(len(values), measured.dims.heads, -1).sum(2)
    return values.sum(0) if axis == "channels" else values


def _site(axis: str) -> str:
    return "head_channels" if axis == "heads" else axis


@criterion(WIDTH, "activation", "Activation", paper=MINITRON, needs="activations", aggregated=True)
def activation(axis: str, measured: Measured, rank: RankSpec) -> np.ndarray:
    """Size of the unit's output: a head's norm, a neuron's activation, a channel after each normalisation, summed over these."""
    scores = _aggregated(measured, axis, rank)
    return scores.sum(0) if axis == "channels" else scores


@criterion("channels", "activation_normalised", "Activation, layers made equal", paper=MINITRON + "; the normalisation is ours", needs="activations", aggregated=True)  # fmt: skip
def activation_normalised(measured: Measured, rank: RankSpec) -> np.ndarray:
    """Size of the channel after each normalisation, divided by the mean over channels there, so that large gains do not dominate the sum."""
    scores_ND = _aggregated(measured, "channels", rank)
    return (scores_ND / np.maximum(scores_ND.mean(1, keepdims=True), 1e-30)).sum(0)


@criterion("heads", "channel_first", "Activation, channels first", paper="NVIDIA Model-Optimizer's mcore_minitron", needs="activations", aggregated=True)  # fmt: skip
def channel_first(measured: Measured, rank: RankSpec) -> np.ndarray:
    """Each channel of the head's output is aggregated first; the head is the L2 norm over its channels."""
    scores_LQ = _aggregated(measured, "head_channels", rank)
    return np.sqrt((scores_LQ**2).reshape(len(scores_LQ), measured.dims.heads, -1).sum(2))


@criterion("neurons", "pre_activation", "Activation before the gate", paper=MINITRON + ", as printed", needs="pre_activations", aggregated=True)  # fmt: skip
def pre_activation(measured: Measured, rank: RankSpec) -> np.ndarray:
    """Size of the neuron before its activation, X W1."""
    return _aggregated(measured, "gates", rank, "pre_activations")


@criterion(WIDTH, "magnitude", "Weight magnitude", paper="Han et al., arXiv 1506.02626, for whole units", needs="weights", sharded=False)
def magnitude(axis: str, measured: Measured, rank: RankSpec) -> np.ndarray:
    """L2 norm of all weights that belong to the unit; looks at no text."""
    return measured.array("weights", f"magnitude.{axis}")


@criterion(
    WIDTH, "wanda", "Wanda, structured", paper="Wanda, arXiv 2306.11695; its structured form in FLAP, arXiv 2312.11983", needs="activations"
)
def wanda(axis: str, measured: Measured, rank: RankSpec) -> np.ndarray:
    """Sum of |weight| in the columns that read the unit, times the L2 norm of what they read over all tokens."""
    moments, count = measured.moments(_site(axis))
    return _per_unit(axis, measured, measured.array("weights", f"reader_l1.{_site(axis)}") * np.sqrt(pooled_square(moments, count)))


@criterion(WIDTH, "flap", "Fluctuation", paper="FLAP, arXiv 2312.11983, equation 5", needs="activations")
def flap(axis: str, measured: Measured, rank: RankSpec) -> np.ndarray:
    """Variance of the unit over all tokens times the squared norm of the columns that read it: what a constant in its place would miss."""
    moments, count = measured.moments(_site(axis))
    return _per_unit(axis, measured, measured.array("weights", f"reader_l2.{_site(axis)}") ** 2 * pooled_variance(moments, count))


@criterion("neurons", "channel_contribution", "Channel contribution", paper="Puzzle, arXiv 2411.19146, section 3.1", needs="activations")
def channel_contribution(measured: Measured, rank: RankSpec) -> np.ndarray:
    """Mean |activation| times the norm of the column with which the down projection reads it."""
    moments, count = measured.moments("neurons")
    return aggregate(moments, count, batch="mean", sequence="mean") * measured.array("weights", "reader_l2.neurons")


@criterion(
    WIDTH, "taylor", "Taylor, first order", paper="Molchanov et al., arXiv 1906.10771, equation 8", needs="gradients", unit="nats a token"
)
def taylor(axis: str, measured: Measured, rank: RankSpec) -> np.ndarray:
    """Mean over blocks of |activation x gradient|, summed over the block: the estimated change of the loss without the unit."""
    return _gradient(axis, measured, "taylor")


@criterion(WIDTH, "fisher", "Fisher", paper="Kwon et al., arXiv 2204.09656, equation 9", needs="gradients")
def fisher(axis: str, measured: Measured, rank: RankSpec) -> np.ndarray:
    """Mean over blocks of the squared derivative of the loss to the unit's gate."""
    return _gradient(axis, measured, "fisher")


def _gradient(axis: str, measured: Measured, kind: str) -> np.ndarray:
    found = measured.mean("gradients", f"{kind}.{axis}")
    return found[0] if axis == "channels" else found


@criterion(WIDTH, "leverage", "Ridge leverage", paper="MoDeGPT, arXiv 2408.09632, section 3.2", needs="covariances", sharded=False)
def leverage(axis: str, measured: Measured, rank: RankSpec) -> np.ndarray:
    """Share of the unit that the other units could not stand in for, up to the ridge."""
    return measured.array("covariances", f"leverage.{axis}")


@criterion(WIDTH, "obs", "Optimal Brain Surgeon", paper="ZipLM, arXiv 2302.04089, equation 3", needs="covariances", sharded=False)
def obs(axis: str, measured: Measured, rank: RankSpec) -> np.ndarray:
    """Output error without the unit when the weights of all others adapt."""
    return measured.array("covariances", f"obs.{axis}")


@criterion(WIDTH, "contribution", "Contribution to the output", paper="Puzzle, arXiv 2411.19146, section 3.1, in mean squares", needs="covariances", sharded=False)  # fmt: skip
def contribution(axis: str, measured: Measured, rank: RankSpec) -> np.ndarray:
    """Mean squared change of what the next projections give, without the unit."""
    return measured.array("covariances", f"contribution.{axis}")


@criterion(WIDTH, "iterative", "Iterative contribution", paper="Puzzle, arXiv 2411.19146, in mean squares", needs="covariances", unit="place", sharded=False)  # fmt: skip
def iterative(axis: str, measured: Measured, rank: RankSpec) -> np.ndarray:
    """Place in the order in which units go when, every time, the one goes that adds least to the error of all that went."""
    return measured.array("covariances", f"iterative.{axis}")
