"""Measuring how invariant networks are. `python -m augkit.measure` is the command."""
