"""Is a run that is killed again and again the run that was left alone? ``python -m benchmarks.resume --help``."""
