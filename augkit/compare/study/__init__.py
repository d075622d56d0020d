"""Studies: arms and seeds, claims, measurements, verdicts, and their report."""
