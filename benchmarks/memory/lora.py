"""Peak memory of one PPO update of an 82 M GPT-2: all weights and a frozen copy, against a LoRA adapter.

    python -m benchmarks.memory.lora

Each case is a process of its own, and its peak the highest resident memory of that process's whole life, from its start.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.logger import configure
from transformers import GPT2Config

from agents import TextPPO
from benchmarks.sft.report import markdown_table
from benchmarks.throughput.machine import describe
from reward_models.files import replacing, write_json
from text_envs.letters import letter_tokenizer

BAR = 0.5  # of full fine-tuning's peak, everything included
VOCABULARY = 50_257
# distilgpt2's shape.
GPT2_82M = GPT2Config(vocab_size=VOCABULARY, n_embd=768, n_layer=6, n_head=12, bos_token_id=0, eos_token_id=0)
FULL = "full, frozen copy"
CASES: dict[str, dict[str, Any]] = {
    FULL: {},
    "LoRA r=16": dict(lora=dict(r=16)),
    "LoRA r=16, all linear layers": dict(lora=dict(r=16, target_modules="all-linear")),
    "full, separate critic": dict(value_model="separate"),
    "LoRA r=16, separate critic": dict(lora=dict(r=16), value_model="separate"),
}
SETTINGS = dict(n_episodes=8, batch_size=4, n_epochs=2, seed=0, device="cpu")
NEW_TOKENS = 24
EPISODES = f"8 episodes of 8 + {NEW_TOKENS} tokens, 2 epochs in minibatches of 4"


def make_env() -> gym.Env:
    """Prompts of eight tokens, replies of `NEW_TOKENS`; no token ends one."""
    return gym.make(
        "text_envs/TextGeneration-v0",
        tokenizer=letter_tokenizer("abcdefgh"),
        prompts=["abcdefgh"],
        reward_model=lambda completions: [float(len(c.response)) for c in completions],
        max_new_tokens=NEW_TOKENS,
        eos_token_id=[],
        vocab_size=VOCABULARY,
    )


def measure_here(name: str) -> dict[str, Any]:
    """One case in this process, which must be fresh.

    Returns:
        imports, peak: bytes resident after the imports, and at most.
        trained: parameters that learn.
    """
    imports = peak_bytes()
    policy_kwargs = dict(model=GPT2_82M, dtype="float32") | CASES[name]
    model = TextPPO("CausalLMPolicy", make_env(), policy_kwargs=policy_kwargs, **SETTINGS)
    model.set_logger(configure(None, []))
    model.learn(1)  # one rollout and its update
    peak = peak_bytes()
    trained = sum(p.numel() for p in model.policy.parameters() if p.requires_grad)
    return {"case": name, "imports": imports, "peak": peak, "trained": trained}


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(name: str, threads: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.memory.lora", "--measure", name, "--threads", str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def with_shares(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row with its share of the peak of full fine-tuning with the same critic: all included, and without the imports."""
    full = {"separate" in row["case"]: row for row in rows if row["case"].startswith("full")}

    def shares(row: dict[str, Any]) -> dict[str, float]:
        whole = full["separate" in row["case"]]
        above = (row["peak"] - row["imports"]) / (whole["peak"] - whole["imports"])
        return {"share": row["peak"] / whole["peak"], "share_above_imports": above}

    return [row | shares(row) for row in rows]


def report(rows: list[dict[str, Any]], machine: dict[str, Any], folder: Path) -> None:
    """Write lora.json and lora.md."""
    headings = ["", "trained", "imports, MB", "peak, MB", "of full", "of full, less the imports"]
    cells = [
        [
            row["case"], f"{row['trained']:,}", f"{row['imports'] / 1e6:,.0f}", f"{row['peak'] / 1e6:,.0f}",
            f"{row['share']:.2f}", f"{row['share_above_imports']:.2f}",
        ]
        for row in rows
    ]  # fmt: skip
    lines = [
        "# Memory of a PPO update: LoRA against all weights", "",
        f"GPT-2 of 82 M parameters (6 x 768, {VOCABULARY:,} tokens: distilgpt2's shape, random weights), float32; "
        f"{EPISODES}. Peaks are of whole processes, libraries included (MB = 10^6 bytes). Bar: LoRA at most {BAR} of full "
        "fine-tuning with a frozen copy.", "",
        *markdown_table(headings, cells), "", f"Machine: {machine['cpu']}, {machine['threads']} threads.", "",
        "Written by `python -m benchmarks.memory.lora`.", "",
    ]  # fmt: skip
    write_json(folder / "lora.json", {"machine": machine, "rows": rows})
    with replacing(folder / "lora.md") as file:
        file.write("\n".join(lines).encode())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory.lora", description=__doc__)
    parser.add_argument("--measure", choices=list(CASES), help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.measure is not None:  # in a process of its own
        print(json.dumps(measure_here(args.measure)))
        return
    rows = with_shares([measure(name, args.threads) for name in CASES])
    report(rows, describe(args.threads), args.out)
    print((args.out / "lora.md").read_text())
    worst = max(row["share"] for row in rows if row["case"].startswith("LoRA"))
    if worst > BAR:
        sys.exit(f"LoRA takes {worst:.2f} of full fine-tuning's memory, more than {BAR}.")


if __name__ == "__main__":
    main()
