"""Comparisons, each one command: this library's speed beside its peers'."""
