"""Text to packed token blocks: calibration, training and held-out, none overlapping another."""
