"""The model card of a pruned checkpoint: what it was made from, how, and how to make it again."""

import json
from typing import Any

from core import __version__
from core.model.cost import cost_of
from core.model.dims import CONFIG_KEYS, dims_of, family_of


def model_card(before: dict[str, Any], after: dict[str, Any], recipe: dict[str, Any], results: str = "") -> str:
    """Write the README.md of a checkpoint that was cut from ``before`` to ``after`` (both config.json) by ``recipe``."""
    keys = CONFIG_KEYS | dict(family_of(before).config_keys)
    old, new = dims_of(before), dims_of(after)
    rows = "\n".join(f"| {key} | {getattr(old, name)} | {getattr(new, name)} |" for name, key in keys.items())
    counts = f"| parameters | {cost_of(before).parameters:,} | {cost_of(after).parameters:,} |"
    origin = recipe.get("model", "unknown")
    base = f"base_model: {origin}\n" if "/" in str(origin) and not str(origin).startswith((".", "/", "~")) else ""
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [pruning, distillation, coppice]
{base}---

# {origin}, pruned with Coppice

Cut by structured pruning with Coppice {__version__} after the Minitron recipe (arXiv 2407.14679). A plain checkpoint:
`AutoModelForCausalLM.from_pretrained` loads it with no further code. The licence of the model it was cut from applies.

| | before | after |
|---|---|---|
{rows}
{counts}
{results}
## Recipe

```json
{json.dumps(recipe, indent=2, ensure_ascii=False)}
```
"""


NAMES = {"cut": "pruned, before repair"}


def results_table(results: dict[str, Any]) -> str:
    """What was measured on the models of a run, as a Markdown table; empty if nothing was."""
    roles = [role for role in ("teacher", "cut", "pruned", "distilled") if "heldout" in results.get(role, {})]
    if not roles:
        return ""
    head = (
        "\n## Measured\n\nPerplexity on text that neither calibration nor training saw.\n\n| | "
        + " | ".join(results[roles[0]]["heldout"])
        + " |\n"
    )
    rule = "|---" * (1 + len(results[roles[0]]["heldout"])) + "|\n"
    rows = [
        f"| {NAMES.get(role, role)} | " + " | ".join(f"{values['perplexity']:.1f}" for values in results[role]["heldout"].values()) + " |\n"
        for role in roles
    ]
    return head + rule + "".join(rows)
