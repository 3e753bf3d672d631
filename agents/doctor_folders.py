"""Which folder tells what: of a PPO run, of a run of the loop and its stages, of a model, of a reward model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agents import doctor_replies as of_replies
from agents import doctor_training as of_training
from agents.doctor_findings import Finding, for_loop, ok, problem, warning
from agents.doctor_reward import accuracy, evaluation_in
from agents.doctor_run import Run, numbers, read_json, state
from agents.doctor_setup import MANY, end_token, generation_settings, is_endless, pad_token
from agents.ledger import RECORD
from reward_models.files import read_rows
from text_envs.task import stop_strings
from text_envs.tokenizer import find_eos, load_tokenizer

OVERFITTED = 1.5  # held-out loss over training loss

# Each with what must have been logged for it; another algorithm may log less.
RUN_CHECKS: tuple[tuple[Callable[[Run], Finding | None], tuple[str, ...]], ...] = (
    (numbers, ()),
    (of_replies.reward, ("objective/scores", "objective/scores_std")),
    (of_replies.failures, ()),
    (of_training.learning_rate, ("train/clip_fraction",)),
    (of_training.gradient, ("train/grad_norm",)),
    (of_training.same_log_probs, ("train/initial_approx_kl", "rollout/log_prob_error")),
    (of_training.kl_at_the_start, ("objective/kl",)),
    (of_training.kl, ("objective/kl", "rollout/ep_len_mean")),
    (of_training.entropy, ("objective/entropy", "objective/scores")),
    (of_training.value_function, ("train/explained_variance",)),
    (of_training.score, ("objective/scores", "objective/scores_std")),
    (of_replies.end_of_replies, ("rollout/ep_len_mean",)),
    (of_replies.reply_length, ("rollout/ep_len_mean",)),
    (of_replies.repetition, ()),
)


def parts_of(folder: Path) -> Iterator[tuple[str, list[Finding]]]:
    """The parts of a folder, and what is found in each.

    Raises:
        ValueError: a file that is damaged.
    """
    rounds = sorted(folder.glob("round-*"), key=lambda path: (len(path.name), path.name))
    if (folder / "metrics.jsonl").is_file():
        is_stage = (folder / RECORD).is_file()
        yield "", for_loop(ppo_run(folder), "ppo") if is_stage else list(ppo_run(folder))
    elif rounds:
        if (folder / "sft" / "config.json").is_file():
            yield "sft", for_loop(model_folder(folder / "sft"), "sft")
        for part in rounds:
            for name, look in (("reward", reward_folder), ("ppo", ppo_run), ("evaluate", evaluation_stage)):
                if (part / name).is_dir():
                    yield f"{part.name}/{name}", for_loop(look(part / name), name)
    elif (folder / "config.json").is_file():
        yield "", list(reward_folder(folder) if is_classifier(folder) else model_folder(folder))
    elif evaluation_in(folder):
        yield "", list(reward_folder(folder))


def ppo_run(folder: Path) -> Iterator[Finding]:
    """A run folder of PPO, and the policy in it."""
    run = Run.read(folder)
    yield state(run)
    looked = [check(run) for check, needed in RUN_CHECKS if run.rows and run.has(*needed)]
    found = [one for one in looked if one is not None]
    yield from found
    policy = folder / "policy"
    if (policy / "config.json").is_file():
        never = any(one.name == "end of replies" and one.status == "problem" for one in found)
        yield from model_folder(policy, run.config, False if never else None)


def model_folder(
    folder: Path, settings: Mapping[str, Any] | None = None, replies_end: bool | None = None
) -> Iterator[Finding]:
    """A Hugging Face folder of a causal LM; of `rlhf sft`, how that went.

    Args:
        settings: with which it was trained: temperature, stop, eos_token_id, where they are not the defaults.
        replies_end: whether its replies do; None where nobody looked.
    """
    settings = settings or {}
    tokenizer = load_tokenizer(str(folder))
    vocab_size = max(tokenizer.get_vocab().values()) + 1
    yield pad_token(tokenizer, replies_end)
    ends = find_eos(tokenizer, settings.get("eos_token_id"), vocab_size)
    yield end_token(tokenizer, ends, stop_strings(settings.get("stop")), is_endless(settings))
    yield generation_settings(folder, settings.get("temperature", 1.0))
    result = read_json(folder / "result.json")
    if result.get("command") == "sft":
        yield fine_tuning(result)


def fine_tuning(result: dict[str, Any]) -> Finding:
    """What the result.json of `rlhf sft` tells."""
    loss, held_out = result.get("train_loss"), result.get("held_out_loss")
    if loss is None:
        return problem(
            "fine-tuning", "Its loss was not finite.", "Lower --learning-rate and fine-tune again."
        )
    examples, left_out = result.get("examples", 0), result.get("overlong", 0)
    seen = f"Loss {loss:.3f} nats per token after {result.get('steps')} steps on {examples:,} demonstrations"
    seen += "." if held_out is None else f", {held_out:.3f} on held-out ones."
    if left_out > MANY * (examples + left_out):
        return warning(
            "fine-tuning",
            f"{left_out:,} more demonstrations were too long and left out. {seen}",
            "Raise --max-length.",
        )
    if held_out is not None and held_out > OVERFITTED * loss:
        return warning(
            "fine-tuning", f"It has learned by heart: {seen}", "Fewer --epochs, or more demonstrations."
        )
    return ok("fine-tuning", seen)


def reward_folder(folder: Path) -> Iterator[Finding]:
    """A reward model, or the stage of the loop in which one is learned."""
    members = [
        path for path in (folder, *sorted(folder.glob("member-*"))) if (path / "config.json").is_file()
    ]
    for member in members:
        yield classifier_padding(read_json(member / "config.json"))
    evaluation = evaluation_in(folder)
    if evaluation:
        yield from accuracy(evaluation)
    elif members:
        yield warning(
            "reward accuracy",
            "Nobody has measured how far it agrees with raters.",
            "Measure it on held-out comparisons: `rlhf reward eval`.",
        )


def classifier_padding(config: dict[str, Any]) -> Finding:
    """The pad token that a classifier's config names."""
    pad, eos = config.get("pad_token_id"), config.get("eos_token_id")
    ends = eos if isinstance(eos, list) else [eos]
    if pad is None or pad in ends:
        return warning(
            "pad token",
            f"Its pad token is {pad}, its EOS {eos}. This library pads it rightly all the same; transformers reads the "
            "token before the EOS, or refuses batches.",
            "Set config.pad_token_id to a token of its own before others use it.",
        )
    return ok("pad token", f"Its pad token {pad} is not its EOS {eos}.")


def evaluation_stage(folder: Path) -> Iterator[Finding]:
    """The stage of the loop in which a policy answers held-out prompts: do replies differ, does the gold judge like them?"""
    if (folder / "samples.jsonl").is_file():
        rows = read_rows(folder / "samples.jsonl")[0]
        finding = of_replies.repetition_of({row["prompt"]: row["response"] for row in rows})
        if finding is not None:
            yield finding
    own, before = (
        read_json(folder / "stage.json"),
        read_json(folder.parents[1] / "sft-evaluate" / "stage.json"),
    )
    gold, start = (record.get("result", {}).get("scores", {}).get("gold") for record in (own, before))
    if gold and start:
        seen = (
            f"The gold judge's mean score is {gold['mean']:.3g} ({gold['low']:.3g} to {gold['high']:.3g}); "
        )
        seen += f"it was {start['mean']:.3g} before PPO."
        if gold["high"] < start["low"]:
            yield problem(
                "over-optimisation",
                f"The policy pleases the reward model and not the gold judge: {seen}",
                "Fewer tokens of PPO or a larger kl_coef; more comparisons, of this policy's own answers.",
            )
        else:
            yield ok("over-optimisation", seen)


def is_classifier(folder: Path) -> bool:
    architectures = read_json(folder / "config.json").get("architectures") or []
    return any(name.endswith("ForSequenceClassification") for name in architectures)
