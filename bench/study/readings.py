"""What the numbers say, written after they were seen. They are of the full study only."""

READINGS: dict[str, str] = {}
"""Title of a section -> a sentence or two."""
