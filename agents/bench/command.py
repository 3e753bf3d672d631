"""What `rlhf bench run` and `rlhf bench report` do. The options are those of `agents.options.bench`."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from reward_models.files import replacing

CLUSTERS = {"dask": ("dask.distributed", "'dask[distributed]'"), "ray": ("ray.util.joblib", "ray")}
NEEDED = ("joblib", "scipy", "matplotlib", "jinja2")


def run(options: Namespace, config: str) -> int:
    """`rlhf bench run`: returns the exit status, 1 where a run failed."""
    check_extra()
    from agents.bench.suite import load_suite
    from agents.commands import usable_device
    from agents.runs import clock

    device, folder = usable_device(options.device), Path(options.out)
    suite = load_suite(options.suite)
    budget = None if options.budget is None else int(options.budget)  # of a class of jsonargparse's
    runs = suite.runs(options.algorithms, options.tasks, options.seeds, budget, options.tuning)
    runs = without_missing(runs, options.algorithms)
    todo = to_do(runs, folder, options.overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    write_settings(folder, runs)
    say(f"{len(runs)} runs, {len(runs) - len(todo)} of them done already; results in {folder}")
    failures, done, started = [], 0, time.perf_counter()
    try:
        with sigterm_as_ctrl_c():
            prepare(todo, folder, options)
            for outcome in in_parallel(todo, folder, options, device):
                done += 1
                failures += [outcome] if outcome.error else []
                left = (time.perf_counter() - started) / done * (len(todo) - done)
                say(f"[{done}/{len(todo)}] {in_words(outcome)}; {clock(left)} to go")
    except KeyboardInterrupt:
        say(f"interrupted: {done} of {len(todo)} runs were done and are kept; the same command goes on.")
        return 130
    if failures:
        say(
            f"{len(failures)} of {len(todo)} runs failed; their tracebacks are in files *.error. The first:\n"
        )
        say(failures[0].trace)
        return 1
    say(f"done in {clock(time.perf_counter() - started)}. `rlhf bench report {folder}` makes the tables.")
    return 0


def report(options: Namespace, config: str) -> int:
    """`rlhf bench report`: returns the exit status."""
    check_extra()
    from agents.bench.report import write_report

    for path in write_report(Path(options.folder)):
        print(path)
    return 0


def check_extra() -> None:
    """Raise ImportError where the packages of the extra are not installed."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ImportError(f'rlhf bench needs {", ".join(missing)}: pip install "text-envs[leaderboard]".')


def without_missing(runs: Sequence[Any], asked_for: Sequence[str]) -> list[Any]:
    """The runs without those whose algorithm is not installed; these are said.

    Raises:
        ImportError: one of them was asked for by name.
    """
    from agents.bench.algorithms import is_missing

    missing = sorted({run.algorithm for run in runs if is_missing(run.algorithm)})
    if missing and set(missing) & set(asked_for):
        raise ImportError(f'{", ".join(missing)} need sb3-contrib: pip install "text-envs[leaderboard]".')
    if missing:
        say(f"left out, for sb3-contrib is not installed: {', '.join(missing)}")
    return [run for run in runs if run.algorithm not in missing]


def to_do(runs: Sequence[Any], folder: Path, overwrite: bool) -> list[Any]:
    """The runs without a result.

    Raises:
        ValueError: there are results of these runs with other settings, and they may not be overwritten.
    """
    from agents.bench.records import first_line

    todo, changed = [], []
    for run in runs:
        path = run.path(folder)
        for litter in path.parent.glob(f".{path.name}.*.tmp"):  # of a run that was killed
            litter.unlink()
        found = first_line(path) if path.is_file() else {}
        if found.get("hash") != run.hash:
            todo.append(run)
            if path.is_file():
                changed.append((run, found))
    if changed and not overwrite:
        run, found = changed[0]
        raise ValueError(
            f"{len(changed)} runs in {folder} were made with other settings; of {run}: "
            f"{differences(found.get('settings', {}), asdict(run))}. Say --overwrite to do them again, or name another "
            "folder by --out."
        )
    return todo


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> str:
    """What differs between two settings, in words."""
    found = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += [differences(before, after, f"{prefix}{key}.")]
        elif before != after:
            found.append(f"{prefix}{key} was {before!r} and is {after!r}")
    return "; ".join(part for part in found if part)


def prepare(todo: Sequence[Any], folder: Path, options: Namespace) -> None:
    """Fine-tune the models that tasks start from, once for each task."""
    from joblib import delayed

    from agents.bench.tasks import make_start, start_folder

    of_tasks = {start_folder(run, folder): run for run in todo}
    for made, run in zip(
        parallel(options)(delayed(make_start)(run, folder) for run in of_tasks.values()), of_tasks.values()
    ):
        if made:
            say(f"fine-tuned the model that {run.task} starts from")


def in_parallel(todo: Sequence[Any], folder: Path, options: Namespace, device: str) -> Iterator[Any]:
    """The outcomes of the runs, as they come."""
    from joblib import delayed

    from agents.bench.running import perform

    jobs = (delayed(perform)(run, folder, options.threads, device) for run in todo)
    # Ray's back end gives them all at the end.
    yield from parallel(options, return_as="list" if options.backend == "ray" else "generator_unordered")(
        jobs
    )


def parallel(options: Namespace, **more: Any) -> Any:
    """joblib's Parallel. Without --backend it takes the back end of a surrounding `joblib.parallel_config`."""
    from joblib import Parallel, parallel_config

    if options.backend == "threading":
        raise ValueError(
            "--backend threading: threads would share one generator of random numbers. Choose loky."
        )
    connect(options.backend)
    chosen = nullcontext() if options.backend is None else parallel_config(options.backend)
    with chosen:  # unlike Parallel it knows of dask
        return Parallel(n_jobs=options.workers, batch_size=1, pre_dispatch="n_jobs", **more)


def connect(backend: str | None) -> None:
    """Make joblib's back ends for clusters ready: the cluster is that of DASK_SCHEDULER_ADDRESS or RAY_ADDRESS, or else
    processes of this machine.

    Raises:
        ImportError: their packages are not installed.
        ValueError: dask's workers have several threads.
    """
    if backend not in CLUSTERS:
        return
    module, package = CLUSTERS[backend]
    try:
        cluster = import_module(module)
    except ImportError as error:
        raise ImportError(f"--backend {backend} needs {module}: pip install {package}.") from error
    if backend == "ray":
        cluster.register_ray()
        return
    try:
        client = cluster.get_client()
    except ValueError:  # there is none yet
        client = cluster.Client(
            **({} if "DASK_SCHEDULER_ADDRESS" in os.environ else {"threads_per_worker": 1})
        )
    threads = max(client.nthreads().values(), default=1)
    if threads > 1:
        raise ValueError(
            f"--backend dask: a worker has {threads} threads, which would share one generator of random numbers. Start "
            "workers with --nthreads 1."
        )


def in_words(outcome: Any) -> str:
    """How a run ended."""
    ended = f"failed: {outcome.error}" if outcome.error else f"score {outcome.score:.3f}"
    return f"{outcome.run}: {ended}, {outcome.seconds:.1f} s"


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does: else the workers would go on by themselves."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def write_settings(folder: Path, runs: Sequence[Any]) -> None:
    """settings.yaml, beside the results: every task and algorithm with its settings and seeds; earlier ones stay in it."""
    path = folder / "settings.yaml"
    kept: dict[str, Any] = (yaml.safe_load(path.read_text()) or {}) if path.is_file() else {}
    for run in runs:
        task = kept.setdefault(run.task, {})
        of_algorithm = ("task", "algorithm", "seed", "target", "arguments")
        task.update({key: value for key, value in asdict(run).items() if key not in of_algorithm})
        algorithm = task.setdefault("algorithms", {}).setdefault(run.algorithm, {})
        algorithm.update(target=run.target, arguments=run.arguments)
        algorithm["seeds"] = sorted({*algorithm.get("seeds", []), run.seed})
    with replacing(path) as file:
        file.write(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True).encode())


def say(text: str) -> None:
    """A line for who waits."""
    print(text, file=sys.stderr, flush=True)
