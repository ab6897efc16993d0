"""Our own studies, one a file, each a command: `python -m organics.studies.ours.NAME`."""
