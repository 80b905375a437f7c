"""Runs as folders: the recipe, the worker that carries it out, the events it leaves."""
