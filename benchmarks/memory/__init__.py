"""How much memory forward and backward take, plain and by each way to save it. ``python -m benchmarks.memory --help``."""
