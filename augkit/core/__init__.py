"""Shared foundations: errors, schemas, files, the command line, progress, pages, and `core.jobs`."""
