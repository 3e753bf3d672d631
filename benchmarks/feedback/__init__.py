"""A room of raters against a server that is killed again and again: ``python -m benchmarks.feedback``."""
