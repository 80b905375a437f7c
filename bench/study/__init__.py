"""The study behind docs/study-importance.md: which criterion, which aggregation, how many rounds, which text. ``python -m bench.study``."""
