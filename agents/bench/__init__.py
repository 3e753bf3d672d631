"""The leaderboard: every algorithm on every task, by seeds, with intervals. `rlhf bench run` and `rlhf bench report`.

It is package code, and not in `benchmarks/`, because it is a tool for users: with an installed wheel, and with their own
algorithms and environments. `benchmarks/leaderboard/` holds what this project found with it.

suite.py        what is to be run: a YAML file -> one `Run` for each task, algorithm and seed
tasks.py        the environment, the held-out prompts and the language model that a task starts from
algorithms.py   the algorithm of a run, from its name or "module:attr"
evaluation.py   how a trained model answers the held-out prompts
running.py      one run, from its settings to its file
records.py      the file of a run: JSON lines, written whole or not at all
statistics.py   interquartile means, bootstrap intervals, profiles: pure functions
results.py      the runs of a folder as numbers to show
tables.py figures.py report.py   LEADERBOARD.md and leaderboard.html
command.py      the command: many runs in parallel, resumed where they stopped
"""
