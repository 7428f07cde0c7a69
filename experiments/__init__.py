"""Binaries: `python -m experiments.NAME --help` says what each does."""
