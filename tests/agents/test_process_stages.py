"""`rlhf sft` and `rlhf reward train` in several processes are those in one, whether each has the whole model or a part."""

import json
import os
import signal
from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from agents import cli, processes
from agents.sft import finetune
from reward_models import last_layer, learning, sharding_trainer
from reward_models.preferences import Comparison
from tests.agents.forked import Forks
from tests.agents.helpers import LETTERS, small_lm
from tests.agents.test_processes import FSDP2, assert_equal, both_ways, flat
from text_envs.letters import letter_tokenizer

HERE = "tests.agents.test_process_stages."
RLHF = "tests.agents.test_processes.rlhf"


@pytest.fixture(scope="module")
def forks():
    with Forks() as forks:
        yield forks


@both_ways
@pytest.mark.parametrize("command", ["sft", "reward train"])
def test_fine_tuning_and_reward_learning_in_two_processes_are_those_in_one(forks, tmp_path, command, way):
    small_lm().save_pretrained(tmp_path / "model")
    letter_tokenizer(LETTERS).save_pretrained(tmp_path / "model")
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijk"), size=rng.integers(1, 6))) for _ in range(64)]
    demos = [{"prompt": a, "response": b} for a, b in zip(words[:32], words[32:])]
    pairs = [{"prompt": d["prompt"], "chosen": "a" + d["response"], "rejected": d["response"]} for d in demos]
    (tmp_path / "sft.jsonl").write_text("\n".join(map(json.dumps, demos)))
    (tmp_path / "reward.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    data = {"sft": "--demos", "reward train": "--preferences"}[command]
    arguments = [
        *command.split(), "--model", tmp_path / "model", data, tmp_path / f"{command.split()[0]}.jsonl", "--held-out", 0,
        "--batch-size", 8, "--epochs", 2, "--learning-rate", "1e-3", "--threads", 1, "--device", "cpu",
    ]  # fmt: skip
    forks.run(RLHF, *arguments, "--out", tmp_path / "two", **way)
    assert cli.main([str(a) for a in (*arguments, "--out", tmp_path / "one")]) == 0
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    start = load_file(tmp_path / "model" / "model.safetensors")
    assert (one["model.norm.weight"] - start["model.norm.weight"]).abs().max() > 1e-3
    assert one.keys() == two.keys()
    for name in one:
        assert torch.allclose(one[name], two[name], atol=1e-5), name
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two")]
    assert results[0]["steps"] == results[1]["steps"] == 8
    if command == "sft":
        assert results[0]["train_loss"] == pytest.approx(results[1]["train_loss"], abs=1e-5)
    else:
        assert results[0]["epochs"][-1]["train_loss"] == pytest.approx(
            results[1]["epochs"][-1]["train_loss"], abs=1e-5
        )


# --- under FSDP2 -----------------------------------------------------------------------------------------------------

WORDS = [LETTERS[i % 5 : i % 5 + 1 + i % 4] for i in range(32)]  # of 1 to 4 letters
ROWS = [{"prompt": prompt, "response": response} for prompt, response in zip(WORDS, WORDS[7:] + WORDS[:7])]


def reward_learned(bf16: bool) -> dict[str, np.ndarray]:
    """Four steps with a score at every token, which makes the module that is sharded another one."""
    torch.set_num_threads(1)
    torch.manual_seed(1 + processes.rank())
    pairs = [
        Comparison(row["prompt"], ("a" + row["response"], row["response"]), "left" if i % 3 else "right")
        for i, row in enumerate(ROWS)
    ]
    with mock.patch.object(sharding_trainer, "_filled", wraps=sharding_trainer._filled) as filled:
        made = learning.train(
            small_lm(), pairs[:16], tokenizer=letter_tokenizer(LETTERS), held_out=pairs[16:], token_coef=1.0, epochs=2,
            batch_size=8, learning_rate=1e-3, bf16=bf16, device="cpu", progress=None,
        )  # fmt: skip
    assert filled.call_count == (processes.count() > 1)
    return {
        "weights": flat(made.model.parameters()),
        "losses": np.array([[epoch.train_loss, epoch.held_out_loss] for epoch in made.epochs]),
    }


def learn_reward(found: str, bf16: str) -> None:
    made = reward_learned(bool(int(bf16)))
    if processes.is_first():
        np.savez(found, **made)


@pytest.fixture(scope="module")
def reward_of_one():
    return reward_learned(False)


@pytest.mark.parametrize("bf16, tolerance", [(0, 1e-5), (1, 0.02)])
def test_a_reward_model_learns_the_same_under_fsdp2(forks, reward_of_one, tmp_path, bf16, tolerance):
    forks.run(HERE + "learn_reward", tmp_path / "found.npz", bf16, **FSDP2)
    found = np.load(tmp_path / "found.npz")
    assert reward_of_one["losses"].shape == (2, 2)
    for name, expected in reward_of_one.items():
        assert found[name] == pytest.approx(expected, abs=tolerance), name


def fine_tuned(checkpoint: str, steps: int, r: int, killed: bool = False) -> dict[str, np.ndarray]:
    """Make so many of six steps, beginning where the checkpoint left it; what came of them, by the quantity's name.

    Args:
        r: rank of the adapter that learns; 0: all weights do.
        killed: whether the second process ends with its last step.
    """
    torch.set_num_threads(1)
    torch.manual_seed(
        1 if r else 1 + processes.rank()
    )  # the first one's weights count; those below an adapter are given
    model, sharded = small_lm(tie_word_embeddings=True), []

    def should_stop() -> bool:
        sharded.append(any(isinstance(weight, DTensor) for weight in model.parameters()))
        if killed and processes.rank() == 1 and len(sharded) == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        return len(sharded) == steps

    tuned = finetune(
        model, ROWS[:24], letter_tokenizer(LETTERS), eos_token_id=LETTERS.index("l"), batch_size=8, max_steps=6,
        learning_rate=1e-3, lora={"r": r, "target_modules": "all-linear"} if r else None, eval_demonstrations=ROWS[24:],
        checkpoint=checkpoint, checkpoint_every=2, resume=True, should_stop=should_stop, device="cpu", progress=None,
    )  # fmt: skip
    assert sharded == [processes.count() > 1] * steps
    return {
        "weights": flat(tuned.model.parameters()),
        "losses": np.array(tuned.losses),
        "held-out loss": np.array(tuned.held_out_loss),
    }


def fine_tune_with_few_logits(dtype: str) -> None:
    """The output layer sees only what predicts a response token, and the last layer's MLP too; then the model is whole."""
    torch.set_num_threads(1)
    last_layer.WORTHWHILE_PRODUCTS = 0
    model, seen = small_lm(), {"lm_head": set(), "mlp": set()}
    rows = [
        {"prompt": "abcdefgh", "response": "ij"}
    ] * 8  # with EOS three of eleven tokens, which ten others predict
    for name, module in (("lm_head", model.lm_head), ("mlp", model.model.layers[-1].mlp)):
        # Not by hooks: under FSDP2 what is told is another module's, in which there would be none.
        module.forward = partial(noting, seen[name], type(module).forward, module)
    tuned = finetune(
        model, rows, letter_tokenizer(LETTERS), eos_token_id=LETTERS.index("l"), batch_size=8, max_steps=2, device="cpu",
        progress=None,
    )  # fmt: skip
    n_own = 8 // processes.count()
    assert seen["lm_head"] == {(4, "float32"), (3 * n_own, dtype)}, seen  # four: the model is tried
    assert (3 * n_own, dtype) in seen["mlp"] and (11 * n_own, dtype) not in seen["mlp"], seen
    assert "forward" not in vars(tuned.model)


def noting(seen: set[tuple[int, str]], forward, module, hidden):
    output = forward(module, hidden)
    seen.add((hidden.shape[:-1].numel(), str(output.dtype).removeprefix("torch.")))
    return output


@both_ways
@pytest.mark.parametrize("precision, dtype", [("no", "float32"), ("bf16", "bfloat16")])
def test_fine_tuning_in_several_processes_computes_what_predicts_a_response(forks, way, precision, dtype):
    forks.run(HERE + "fine_tune_with_few_logits", dtype, **way, ACCELERATE_MIXED_PRECISION=precision)


def fine_tune(found: str, checkpoint: str, steps: str, r: str, killed: str = "") -> None:
    made = fine_tuned(checkpoint, int(steps), int(r), bool(killed))
    if processes.is_first():
        np.savez(found, **made)


@pytest.mark.parametrize("r", [0, 2], ids=["all weights", "adapter"])
def test_fine_tuning_that_was_killed_under_fsdp2_goes_on_without_and_with_it(forks, tmp_path, r):
    found, parts = tmp_path / "found.npz", tmp_path / "parts.zip"
    statuses, printed = forks.statuses(HERE + "fine_tune", found, parts, 3, r, "killed", **FSDP2)
    assert statuses == [1, -signal.SIGKILL] and "Another process of this run has ended" in printed
    fine_tuned(parts, 1, r)  # the third step of six: a checkpoint was written after the second
    forks.run(HERE + "fine_tune", found, parts, 3, r, **FSDP2)
    of_one = fine_tuned(tmp_path / "one.zip", 6, r)
    assert len(of_one["losses"]) == 6
    assert_equal(np.load(found), of_one)
