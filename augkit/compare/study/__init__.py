"""Compare studies: arms, seeds, claims, measurements, verdicts and the report."""
