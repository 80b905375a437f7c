"""Importance of layers, heads, neurons and embedding channels, from forward passes over the calibration blocks."""
