"""A contender in a process of its own, so that its memory is its own and its threads do not meet another's."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from typing import Any

from benchmarks.throughput.contender import run
from benchmarks.throughput.setting import Setting
from benchmarks.throughput.tables import TABLES

Sample = dict[str, Any]


class ContenderFailed(RuntimeError):
    """A contender's process has ended by itself; the message holds the end of what it wrote."""


class Worker:
    """The parent's side: start the process, order rounds one by one, read their reports."""

    def __init__(self, table: str, name: str, threads: int, setting: Setting | None = None):
        self.name = name
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the worker
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONWARNINGS": "ignore",
        }
        python = TABLES[table].contenders[name].python
        interpreter = (python and python.find()) or sys.executable
        sizes = json.dumps(asdict(setting or Setting()))
        command = [interpreter, "-m", "benchmarks.throughput.worker", table, name, str(threads), sizes]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment,
        )
        self._read()  # ready

    def round(self) -> Sample:
        """Run one round and return its report."""
        assert self.process.stdin is not None
        print("run", file=self.process.stdin, flush=True)
        return self._read()

    def _read(self) -> Sample:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise ContenderFailed(
                f"{self.name} has died: in its process. It wrote:\n{self.log.read()[-3000:]}"
            )
        return json.loads(line)

    def close(self) -> None:
        """Tell the process to end; kill it if it does not."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def main() -> None:
    """``python -m benchmarks.throughput.worker TABLE CONTENDER THREADS SETTING``: what ``Worker`` starts."""
    table, name, threads, sizes = sys.argv[1:]
    # Libraries print to stdout as they please; the reports go where stdout went when the process started.
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run(TABLES[table].contenders[name], Setting(**json.loads(sizes)), int(threads), sys.stdin, reports)


if __name__ == "__main__":
    main()
