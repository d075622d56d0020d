"""The report of a study: page, charts and text."""
