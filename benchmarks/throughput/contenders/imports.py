"""How long an import takes in a fresh process."""

import subprocess
import sys

from benchmarks.throughput.contender import Rounds
from benchmarks.throughput.setting import Setting

CODE = """
import sys, time
started = time.perf_counter()
import {module}
print(time.perf_counter() - started, "torch" in sys.modules)
"""


def fresh(setting: Setting, rounds: Rounds, module: str, repeats: int = 5) -> None:
    """``repeats`` processes after one another, each timing its own import; the start of Python is left out."""
    rounds.units = repeats
    while rounds.next():
        rounds.seconds = 0.0
        for _ in range(repeats):
            output = subprocess.check_output([sys.executable, "-c", CODE.format(module=module)], text=True)
            seconds, with_torch = output.split()
            rounds.seconds += float(seconds)
            rounds.facts["imports torch"] = {"True": "yes", "False": "no"}[with_torch]
