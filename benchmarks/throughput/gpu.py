"""The same task on a GPU, for larger models: ``python -m benchmarks.throughput.gpu --help``."""

import argparse
import gc
import json
import time
import warnings
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import DeviceType, ProfilerActivity

from benchmarks.throughput.contender import Contender, Rounds
from benchmarks.throughput.contenders.ours import Rollout, make_agent, make_env
from benchmarks.throughput.contenders.timed import wait_for
from benchmarks.throughput.gpu_report import CONTENDERS, markdown
from benchmarks.throughput.machine import describe
from benchmarks.throughput.setting import QwenSetting, Setting, make_model

TASK: dict[str, Any] = dict(
    prompt=128, response=128, episodes=64, epochs=2, minibatch=16, slots=64, ragged_episodes=256, mean_length=32,
    limit=128,
)  # fmt: skip
SIZES = {
    "124M": Setting(layers=12, hidden=768, heads=12, vocabulary=50_257, **TASK),
    "0.5B": QwenSetting(layers=24, hidden=896, heads=14, mlp=4864, vocabulary=151_936, **TASK),
    "1.5B": QwenSetting(layers=28, hidden=1536, heads=12, mlp=8960, vocabulary=151_936, **TASK),
}
TINY: dict[str, Any] = dict(
    layers=1, hidden=16, heads=2, vocabulary=64, prompt=3, response=4, episodes=4, minibatch=2, slots=2,
    ragged_episodes=5, mean_length=3, limit=8,
)  # fmt: skip


class OnDevice(Rounds):
    """Rounds in this very process: a warm-up, then ``n_rounds``. A round is over when the device has nothing left to do.

    Attributes:
        walls: seconds of each round, the warm-up first.
    """

    def __init__(self, device: str, n_rounds: int):
        self.device, self.left = device, n_rounds + 1
        self.units, self.seconds = 1.0, None
        self.facts: dict[str, Any] = {}
        self.walls: list[float] = []
        self.started: float | None = None
        self.after_warm_up = None

    def next(self) -> bool:
        wait_for(self.device)
        if self.started is not None:
            self.walls.append(time.perf_counter() - self.started)
        if len(self.walls) == 1:
            self.end_warm_up()
            forget_peak(self.device)
        self.left -= 1
        self.started = time.perf_counter()
        return self.left >= 0


def forget_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)


def peak_gb(device: str) -> float | None:
    """The most that tensors have held on the GPU since ``forget_peak``, in GB."""
    return round(torch.cuda.max_memory_allocated(device) / 1e9, 2) if device.startswith("cuda") else None


def free(device: str) -> None:
    """Give back what the last contender held."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def measure(name: str, contender: Contender, size: str, setting: Setting, n_rounds: int) -> dict[str, Any]:
    """One row: rounds of one contender, in seconds, and what one round did. The figures of the tables follow from these.

    Tokens are those of the last round; parts are medians over the rounds.
    """
    free(setting.device)
    rounds = OnDevice(setting.device, n_rounds)
    contender.load()(setting, rounds, **contender.kwargs)
    parts = {part: median(seconds[1:]) for part, seconds in rounds.facts.pop("parts", {}).items()}
    return {
        "name": name,
        "size": size,
        "warm_up": rounds.walls[0],
        "rounds": rounds.walls[1:],
        "tokens": int(rounds.units) if contender.function != "trl_rloo:iteration" else setting.tokens,
        "sequence_tokens": setting.episodes * (setting.prompt + setting.response),
        "epochs": setting.epochs,
        "parts": parts,
        "peak_gb": peak_gb(setting.device),
        "parameters": rounds.facts.pop("parameters", None),
        "facts": rounds.facts,
    }


def ceilings(device: str, size: int = 8192, repeats: int = 10) -> dict[str, float]:
    """What the machine can do: TFLOP/s of square products of ``size``, and microseconds to launch one tiny kernel."""

    def seconds(function, *args: Any) -> float:
        function(*args)
        wait_for(device)
        started = time.perf_counter()
        for _ in range(repeats):
            function(*args)
        wait_for(device)
        return (time.perf_counter() - started) / repeats

    found: dict[str, float] = {"size": size}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        found[f"{name}_tflops"] = 2 * size**3 / seconds(torch.mm, a, b) / 1e12
    one = torch.zeros(1, device=device)

    def add_often() -> None:
        for _ in range(200):
            one.add_(1)

    found["launch_us"] = seconds(add_often) / 200 * 1e6
    return found


def profile(setting: Setting) -> dict[str, float]:
    """What one decoding step in bfloat16 is made of: wall time without the profiler, and the GPU's own with it."""
    env = make_env(setting, setting.slots)
    policy = {"model": make_model(setting)}
    agent = make_agent(setting, Rollout, "bfloat16", env=env, policy_kwargs=policy)
    rounds = OnDevice(setting.device, 1)
    while rounds.next():
        agent.learn(1)
    with torch.profiler.profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        agent.learn(1)
        wait_for(setting.device)
    events = profiler.key_averages()
    # An operator is listed with the time of its kernels, which are listed too: only events of the GPU count.
    busy = sum(event.self_device_time_total for event in events if event.device_type == DeviceType.CUDA)
    launches = sum(event.count for event in events if event.key.startswith(("cudaLaunch", "cuLaunch")))
    steps = setting.response * setting.episodes / setting.slots
    return {
        "step_ms": rounds.walls[-1] / steps * 1e3,
        "gpu_ms": busy / steps / 1e3,
        "launches": launches / steps,
    }


def setting_of(size: str, name: str, device: str, quick: bool) -> Setting:
    setting = replace(SIZES[size], device=device, **(TINY if quick else {}))
    if name.endswith("-256"):
        n = 8 if quick else 256
        return replace(setting, slots=n, episodes=n)
    return setting


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput.gpu", description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--rounds", type=int, default=3, help="of each contender, after a warm-up")
    parser.add_argument(
        "--only", nargs="+", default=[], choices=[*CONTENDERS, "profile"], metavar="NAME",
        help=f"contenders: {', '.join(CONTENDERS)}; or profile",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="tiny models, one round, to see that it runs")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="where gpu.json and gpu.md go"
    )
    args = parser.parse_args(argv)
    warnings.filterwarnings("ignore")

    args.out.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        "machine": describe(torch.get_num_threads())
        | {"gpu": torch.cuda.get_device_name(args.device) if args.device.startswith("cuda") else "no GPU"},
        "notes": ["Tiny models: the figures mean nothing."] if args.quick else [],
        "ceilings": ceilings(args.device, size=64 if args.quick else 8192),
        "profiles": {},
        "rows": [],
    }
    for size in args.sizes:
        if not args.only or "profile" in args.only:
            free(args.device)
            record["profiles"][size] = profile(setting_of(size, "profile", args.device, args.quick))
            write(record, args.out)
        for name, contender in CONTENDERS.items():
            if (args.only and name not in args.only) or not contender.is_installed:
                continue
            setting = setting_of(size, name, args.device, args.quick)
            try:
                row = measure(name, contender, size, setting, 1 if args.quick else args.rounds)
            except torch.OutOfMemoryError:
                record["notes"].append(f"{size}: {contender.label}: out of memory")
            else:
                record["rows"].append(row)
                print(f"{size}: {contender.label}: {median(row['rounds']):.3f} s a round", flush=True)
            write(record, args.out)


def write(record: dict[str, Any], folder: Path) -> None:
    """``gpu.json`` and ``gpu.md``, after each row, so that a run cut short keeps what it has."""
    (folder / "gpu.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "gpu.md").write_text(markdown(record))


if __name__ == "__main__":
    main()
