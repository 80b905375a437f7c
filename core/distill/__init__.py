"""Regrowth: the pruned model learns from the uncut one."""
