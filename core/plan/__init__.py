"""Which units are kept for given targets. Plain arithmetic on stored scores; no model, no torch."""
