"""Runs functions of the tests in several processes that are connected as `accelerate launch` connects them, on CPUs.

They are forked from one that has imported everything: starting each anew would take most of the time.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
PATIENCE = 300  # seconds


class Failed(AssertionError):
    """Not all processes ended with status 0."""


class Forks:
    """A context in which `run` runs functions."""

    def __enter__(self) -> "Forks":
        environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.agents.forked"],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self.server.communicate("")

    def statuses(self, function: str, *arguments, n: int = 2, **environment: str) -> tuple[list[int], str]:
        """Call `module.function(*arguments)`, strings, in n processes. Returns the exit status of each, negative for a
        signal, and what they printed."""
        with TemporaryDirectory() as folder:
            order = [folder, function, [str(argument) for argument in arguments], n, environment]
            print(json.dumps(order), file=self.server.stdin, flush=True)
            statuses = json.loads(self.server.stdout.readline())
            return statuses, "".join(Path(folder, str(rank)).read_text() for rank in range(n))

    def run(self, function: str, *arguments, n: int = 2, **environment: str) -> str:
        """As `statuses`; what they printed, once all ended with status 0."""
        statuses, printed = self.statuses(function, *arguments, n=n, **environment)
        if any(statuses):
            raise Failed(f"{statuses}\n{printed}")
        return printed


def serve() -> None:
    """One order per line of standard input, one list of exit statuses per line of standard output."""
    for module in (
        "torch.distributed.fsdp",
        "agents.cli",
        "agents.commands",
        "agents.sft",
        "tests.agents.helpers",
    ):
        import_module(module)
    import_module("transformers").AutoModelForCausalLM  # noqa: B018  it is imported when it is asked for
    for line in sys.stdin:
        folder, function, arguments, n, environment = json.loads(line)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        connected = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(n)}
        children = []
        for rank in range(n):
            child = os.fork()
            if child == 0:
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                os.environ.update(connected | own | environment)
                signal.alarm(PATIENCE)  # ends a process that waits for one that will not come
                _end_with(Path(folder, str(rank)), function, arguments)
            children.append(child)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(statuses), flush=True)


def _end_with(output: Path, function: str, arguments: list[str]) -> None:
    """Call the function and end the process, whatever comes of it."""
    status = 1
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 1)
        os.dup2(file, 2)
        module, _, name = function.rpartition(".")
        status = int(getattr(import_module(module), name)(*arguments) or 0)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
