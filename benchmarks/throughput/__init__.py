"""How fast, beside what a user would else pick: ``python -m benchmarks.throughput``."""
