"""What papers say about RLHF, reproduced small: each experiment is one module, its runs, its claims and its figure."""
