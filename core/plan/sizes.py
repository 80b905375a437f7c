"""Which target sizes are possible, and what is nearest to one that is not."""

from core.model.dims import CONFIG_KEYS, Config, Dims, dims_of, family_of, resized
from core.specs import Targets

NAMES = {key: name for name, key in CONFIG_KEYS.items()}


def problems(config: Config, targets: Targets) -> list[str]:
    """List everything that keeps a model from being cut to ``targets`` and loaded again, a sentence each with the nearest ways out."""
    source, dims = dims_of(config), resized(dims_of(config), targets)
    found = [
        f"{key}: {size} is more than the model has ({getattr(source, NAMES[key])}); a cut only makes smaller."
        for key, size in targets.to_dict().items()
        if size is not None and size > getattr(source, NAMES[key])
    ]
    if found or targets.own_problems():
        return found
    if dims.heads % dims.kv_heads or dims.group > source.group:
        allowed = head_choices(source, dims.kv_heads)
        found.append(
            f"num_attention_heads: {dims.heads} query heads cannot be shared evenly by {dims.kv_heads} key-value heads of at most {source.group} each; "
            f"with {dims.kv_heads} key-value heads the possible numbers are {', '.join(map(str, allowed))}."
        )
    elif dims.hidden not in hidden_choices(config, dims.heads):
        nearest = nearest_sizes(hidden_choices(config, dims.heads), dims.hidden)
        found.append(
            f"hidden_size: {dims.hidden} is not a multiple of the {dims.heads} attention heads, and transformers would refuse to load such a "
            f"{config['model_type']} model; the nearest possible sizes are {' and '.join(map(str, nearest))}."
        )
    return found


def head_choices(source: Dims, kv_heads: int) -> list[int]:
    """Possible numbers of query heads with ``kv_heads`` key-value heads kept."""
    return [kv_heads * group for group in range(1, source.group + 1)]


def hidden_choices(config: Config, heads: int) -> list[int]:
    """Possible hidden sizes with ``heads`` query heads kept, ascending."""
    step = heads if family_of(config).hidden_multiple_of_heads else 1
    return list(range(step, dims_of(config).hidden + 1, step))


def nearest_sizes(choices: list[int], wanted: int) -> list[int]:
    """The choices just below and just above a size that is not among them."""
    below, above = [size for size in choices if size < wanted], [size for size in choices if size > wanted]
    return below[-1:] + above[:1]
