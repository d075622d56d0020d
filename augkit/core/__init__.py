"""What every package stands on: errors, schemas, files, the command line, progress, pages; and `core.jobs`."""
