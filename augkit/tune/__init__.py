"""Searching the fields of a recipe against learned invariance. `python -m augkit.tune` is the command."""
