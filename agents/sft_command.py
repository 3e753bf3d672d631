"""What `rlhf sft` does. Its options are in `agents.options.training`."""

import json
from dataclasses import asdict

from jsonargparse import Namespace
from rich.console import Console

from agents import processes
from agents.callbacks import SignalReceived, stop_on_signals
from agents.commands import check_model, exit_status, set_up
from agents.lora import of_rank
from agents.runs import RunFolder
from agents.sft import FineTuned, finetune
from agents.sft_samples import table_of
from reward_models.files import replacing


def sft(options: Namespace, config: str) -> int:
    """`rlhf sft`: returns the exit status."""
    set_up(options)
    check_model(options.model)
    run = RunFolder(options.out, options.overwrite, options.resume)
    run.check(config)
    if options.resume and run.is_finished():
        print(f"The run in {run.path} is finished; nothing is left to do.")
        return 0
    renamed = {"out": "output_dir", "demos": "demonstrations", "eval_demos": "eval_demonstrations"}
    arguments = {renamed.get(name, name): value for name, value in vars(options).items()}
    for name in ("overwrite", "threads"):
        arguments.pop(name)
    arguments["lora"] = of_rank(arguments.pop("lora_r"))
    with stop_on_signals() as stopped, processes.explained():
        result = finetune(
            **arguments,
            checkpoint=run.last_checkpoint,
            on_start=lambda: run.start(config),
            should_stop=lambda: bool(stopped),
        )
    stopped.agree()
    if not processes.is_first():
        return exit_status(stopped)
    report(result, run, stopped)
    return exit_status(
        stopped,
        f"the model as it was after {result.steps} steps is in {run.path}; the same command with --resume goes on.",
    )


def report(result: FineTuned, run: RunFolder, stopped: SignalReceived) -> None:
    """Show the samples and the losses, and write samples.jsonl and result.json."""
    samples = [asdict(sample) for sample in result.samples]
    with replacing(run.samples) as file:
        file.writelines((json.dumps(sample, ensure_ascii=False) + "\n").encode() for sample in samples)
    if samples:
        kind = "Prompts that it did not learn from" if result.held_out else "Prompts that it learned from"
        Console().print(table_of(result.samples, kind))
    names = (
        "train_loss",
        "held_out_loss",
        "held_out_loss_before",
        "steps",
        "examples",
        "held_out",
        "overlong",
        "seconds",
    )
    numbers = {name: getattr(result, name) for name in names}
    stopped_by = stopped.number.name if stopped.number else None
    run.write_result({"command": "sft", **numbers, "samples": samples, "stopped_by": stopped_by})
    before, after = result.held_out_loss_before, result.held_out_loss
    held_out = "" if before is None or after is None else f", held-out {before:.3f} -> {after:.3f}"
    print(f"loss {result.train_loss:.3f}{held_out} after {result.steps} steps; the model is in {run.path}")
