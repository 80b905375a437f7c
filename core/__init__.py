"""Coppice's engine: score a language model, plan a cut, make it, let it regrow.

The rooms stand in the order in which a model passes through them, and imports only point back along that way:
``model -> data -> score -> plan -> prune -> distill -> evaluate -> report -> runs -> cli``.
"""

__version__ = "0.1.0"
