"""Comparing recipes over seeds, and studies of several arms. `python -m augkit.compare` is the command."""
