"""The `rlhf` command: what it leaves behind, what it says to mistakes, and how it takes a Ctrl-C."""

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from agents import cli
from agents.command_env import stop_strings
from agents.ledger import fingerprint
from agents.options import training
from agents.ppo import TextPPO
from agents.sft import finetune
from agents.sft_trainer import Progress
from tests.agents.helpers import LETTERS, small_lm
from text_envs.letters import letter_tokenizer

SMALL = [
    "--n-episodes",
    "8",
    "--batch-size",
    "4",
    "--n-epochs",
    "1",
    "--tensorboard",
    "false",
    "--threads",
    "1",
]


@pytest.fixture
def model_folder(tmp_path) -> Path:
    """A small random model over twelve letters; "l" ends a text."""
    folder = tmp_path / "model"
    model = small_lm()
    model.generation_config.eos_token_id = LETTERS.index("l")
    model.save_pretrained(folder)
    letter_tokenizer(LETTERS).save_pretrained(folder)
    return folder


@pytest.fixture
def prompts(tmp_path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("abcdef", "bc", "d")))
    return path


def rlhf(*arguments) -> int:
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as exit:
        return exit.code


def ppo(model, prompts, out, *more) -> int:
    reward = '{"name": "length", "target": 3, "unit": "characters"}'
    given = ["--prompts", prompts, "--prompt-field", "text", "--reward", reward, "--max-new-tokens", "6"]
    return rlhf("ppo", "--model", model, *given, "--total-timesteps", "100", "--out", out, *SMALL, *more)


# --- what it leaves behind ---


def test_ppo_leaves_a_run_folder(model_folder, prompts, tmp_path, capsys):
    out = tmp_path / "run"
    assert ppo(model_folder, prompts, out, "--samples-every", "1", "--tensorboard", "true") == 0
    captured = capsys.readouterr()
    assert f"run folder {out}" in captured.out and "of 100 tokens   score" in captured.err

    names = "config.yaml metrics.jsonl samples.jsonl tensorboard checkpoints policy result.json"
    assert {path.name for path in out.iterdir()} == set(names.split())
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((out / "result.json").read_text())
    assert result["updates"] == len(metrics) and result["num_timesteps"] >= 100
    assert result["scores"]["last"] == metrics[-1]["objective/scores"]
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 4 * len(metrics) and samples[0]["prompt"] in ("abcdef", "bc", "d")
    assert TextPPO.load(out / "checkpoints" / "last.zip").num_timesteps == result["num_timesteps"]
    assert list((out / "tensorboard").iterdir())
    assert AutoModelForCausalLM.from_pretrained(out / "policy").config.vocab_size == len(LETTERS)
    assert AutoTokenizer.from_pretrained(out / "policy")("abc")["input_ids"] == [0, 1, 2]


def test_the_configuration_of_a_run_repeats_it(model_folder, prompts, tmp_path):
    assert ppo(model_folder, prompts, tmp_path / "one", "--seed", "5", "--score-clip", "null") == 0
    config = tmp_path / "one" / "config.yaml"
    assert yaml.safe_load(config.read_text())["score_clip"] is None
    assert rlhf("ppo", "--config", config, "--out", tmp_path / "two") == 0
    scores = [
        [
            json.loads(line)["objective/scores"]
            for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()
        ]
        for run in ("one", "two")
    ]
    assert scores[0] == scores[1]


def test_ppo_trains_in_a_registered_environment_with_its_own_reward(tmp_path):
    out = tmp_path / "run"
    assert (
        rlhf("ppo", "--env", "text_envs/CountLetter-v0", "--total-timesteps", "50", "--out", out, *SMALL) == 0
    )
    assert json.loads((out / "result.json").read_text())["stopped_by"] is None


def test_a_long_prompt_keeps_its_opening(model_folder, prompts, tmp_path):
    assert (
        ppo(model_folder, prompts, tmp_path / "run", "--max-prompt-tokens", "2", "--samples-every", "1") == 0
    )
    lines = (tmp_path / "run" / "samples.jsonl").read_text().splitlines()
    assert {json.loads(line)["prompt"] for line in lines} == {"ab", "bc", "d"}


def test_an_adapter_is_trained_and_written_merged(model_folder, prompts, tmp_path):
    pytest.importorskip("peft")
    out = tmp_path / "run"
    assert ppo(model_folder, prompts, out, "--lora-r", "2") == 0
    model = TextPPO.load(out / "checkpoints" / "last.zip")
    trained = [name for name, weight in model.policy.named_parameters() if weight.requires_grad]
    assert trained and all(".lora_" in name or name.startswith("value_head.") for name in trained)
    demos = tmp_path / "demos.jsonl"
    demos.write_text('{"prompt": "ab", "response": "cdl"}\n' * 4)
    given = ["--model", model_folder, "--demos", demos, "--max-steps", "2", "--threads", "1"]
    assert rlhf("sft", *given, "--lora-r", "2", "--out", tmp_path / "sft") == 0
    start = set(load_file(model_folder / "model.safetensors"))
    assert set(load_file(out / "policy" / "model.safetensors")) == start
    assert set(load_file(tmp_path / "sft" / "model.safetensors")) == start


def test_sft_writes_a_model_that_ppo_and_generate_take(model_folder, tmp_path, capsys):
    demos = tmp_path / "demos.jsonl"
    demos.write_text('{"prompt": "ab", "response": "cd"}\n' * 4)
    out = tmp_path / "sft"
    settings = ["--max-steps", "60", "--learning-rate", "1e-2", "--eval-demos", demos, "--threads", "1"]
    tokenizer = letter_tokenizer(LETTERS)
    tokenizer.eos_token = "l"
    tokenizer.save_pretrained(model_folder)
    assert rlhf("sft", "--model", model_folder, "--demos", demos, "--out", out, *settings) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["held_out_loss"] < 0.1 < result["held_out_loss_before"]
    (sample,) = result["samples"]  # there is one prompt
    assert (sample["prompt"], sample["demonstration"], sample["after"]) == ("ab", "cd", "cd")
    assert [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()] == [sample]
    told = capsys.readouterr().out
    assert "before" in told and re.search(r"held-out \d\.\d+ -> 0\.0\d+ after 60 steps", told)
    assert rlhf("generate", "--model", out, "--prompt", "ab", "--greedy", "--n", "2") == 0
    assert capsys.readouterr().out == "cd\ncd\n"


def test_generate_writes_answers_that_feedback_import_takes(model_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("prompts.jsonl").write_text('{"prompt": "ab", "topic": "x"}\n{"prompt": "bc"}\n')
    options = ["--prompts", "prompts.jsonl", "--n", "2", "--temperature", "0.5", "--seed", "7"]
    command = [
        "generate",
        "--model",
        model_folder,
        *options,
        "--max-new-tokens",
        "3",
        "--out",
        "answers.jsonl",
    ]
    assert rlhf(*command) == 0
    assert "4 replies to 2 prompts in answers.jsonl" in capsys.readouterr().out
    rows = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert [(row["prompt"], row.get("topic")) for row in rows] == [("ab", "x")] * 2 + [("bc", None)] * 2
    assert rows[0]["origin"] == {
        "model": fingerprint(model_folder, weights_only=True),
        "sampling": {"temperature": 0.5, "max_new_tokens": 3},
        "seed": 7,
    }
    assert rlhf(*command) == 2 and "answers.jsonl is there already" in capsys.readouterr().err
    assert rlhf("feedback", "import", "answers.jsonl", "--db", "f.db") == 0
    assert "answers.jsonl: 4 samples" in capsys.readouterr().out


# --- what it says to mistakes ---

MISTAKES = {
    "no command": ([], r"Which command\? Choose one of sft, ppo, generate, demo"),
    "no command of a group": (["feedback"], r"rlhf feedback: error: Which command\? .* `rlhf feedback --help`"),
    "unknown option": (["ppo", "--modle", "x", "--total-timesteps", "9", "--out", "x"], "--modle"),
    "missing option": (["ppo", "--out", "x"], "^rlhf ppo: .*--total-timesteps is missing. `rlhf ppo --help`"),
    "bad number": (["ppo", "--total-timesteps", "-3", "--out", "x"], "--total-timesteps: .*v>0"),
    "no environment": (["ppo", "--total-timesteps", "9", "--out", "x"], "give either --env ID or --prompts FILE"),
    "unknown environment": (["ppo", "--env", "text_envs/Nope-v0"], "`Nope` doesn't exist.* Choose one of .*, module:id.$"),
    "another's environment": (["ppo", "--env", "Nope"], "`Nope` doesn't exist: in --env Nope. Choose one of text_envs/"),
    "endless seed": (["ppo", "--env", "text_envs/Copy-v0", "--seed", "99999999999999"], "--seed: .*v<4294967296"),
    "infinite rate": (["ppo", "--env", "text_envs/Copy-v0", "--learning-rate", "inf"], "--learning-rate: .*v<inf"),
    "no tokens": (["ppo", "--env", "text_envs/Sentiment-v0", "--env-kwargs", '{"allowed_tokens": 5}'], "allowed_tokens=5 is"),
    "stop of a number": (["ppo", "--env", "text_envs/SupportReply-v0", "--stop", '["a", 3]'], "no JSON list of texts"),
    "no text environment": (["ppo", "--env", "CartPole-v1"], "This is no text environment"),
    "option of another environment": (["ppo", "--env", "text_envs/Copy-v0", "--reward", "json"], "argument 'reward_model'.$"),
    "unknown argument": (["ppo", "--env", "text_envs/Copy-v0", "--env-kwargs", '{"a": 1}'], "argument 'a'.$"),
    "bare environment": (["ppo", "--env", "text_envs/TextGeneration-v0"], "missing 3 .*'tokenizer', 'prompts', and"),
    "too many threads": (["ppo", "--env", "text_envs/Copy-v0", "--threads", "9999"], "this machine has \\d+ processors"),
    "no model folder": (["ppo", "--model", "./nope", "--env", "text_envs/CountLetter-v0"], "--model ./nope does not exist"),
    "no such device": (["ppo", "--env", "text_envs/CountLetter-v0", "--device", "tpux"], "--device tpux cannot be used"),
    "constant of what": (["ppo", "--env", "text_envs/CountLetter-v0", "--lr-schedule", "constant"], "needs --learning-rate"),
    "missing configuration": (["ppo", "--config", "nope.yaml"], "nope.yaml"),
}  # fmt: skip


def assert_one_message(status, captured, says):
    assert status == 2
    (line,) = captured.err.strip().splitlines()
    assert re.search(says, line), line
    assert line.startswith("rlhf")


@pytest.mark.parametrize("arguments, says", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_message_and_status_2(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if "ppo" in arguments[:1] and "--out" not in arguments:
        arguments = [*arguments, "--total-timesteps", "9", "--out", "x"]
    assert_one_message(rlhf(*arguments), capsys.readouterr(), says)
    assert list(tmp_path.iterdir()) == []  # nothing was begun


@pytest.mark.parametrize(
    "changes, says",
    [
        (["--prompts", "nope.jsonl"], "nope.jsonl does not exist"),
        (["--prompt-field", "body"], r"prompts.jsonl, line 1, has no field 'body'"),
        (["--reward", '{"name": "length", "target": "x"}'], "could not be made with {'target': 'x'"),
        (["--env-kwargs", '{"foo": 1}'], "unexpected keyword argument 'foo'"),
        (["--reward", "lenght"], "no reward model named 'lenght'.* Did you mean 'length'"),
        (["--reward", '{"name": "guarded", "reward": "lenght"}'], "no reward model named 'lenght'"),
        (["--reward", "nomodule:score"], "No module named 'nomodule'"),
        (["--max-new-tokens", "1000"], "the model's positions end at 64"),
    ],
)
def test_a_mistake_in_prompts_or_reward(model_folder, prompts, tmp_path, capsys, changes, says):
    status = ppo(model_folder, prompts, tmp_path / "run", *changes)
    assert_one_message(status, capsys.readouterr(), says)


def test_a_model_of_other_tokens_than_the_environment_s_is_refused(model_folder, tmp_path, capsys):
    def train(env, *more):
        given = ["--model", model_folder, "--env", f"text_envs/{env}-v0", "--total-timesteps", "9", *SMALL]
        return rlhf("ppo", *given, "--out", tmp_path / env, *more)

    assert_one_message(
        train("SupportReply"),
        capsys.readouterr(),
        "has other tokens than text_envs/SupportReply-v0.*leave --model out",
    )
    assert train("CountLetter", "--env-kwargs", json.dumps({"letters": LETTERS})) == 0


def test_the_model_is_that_of_an_environment_which_takes_one(model_folder, tmp_path, capsys):
    given = ["--model", model_folder, "--env", "text_envs/IMDBContinuation-v0", "--total-timesteps", "9"]
    status = rlhf("ppo", *given, "--out", tmp_path / "run")
    assert_one_message(status, capsys.readouterr(), "prompts is not given: IMDBContinuation-v0")


def test_a_stop_string_may_begin_with_a_bracket():
    assert stop_strings("[/INST]") == "[/INST]" and stop_strings(["a", "b"]) == ["a", "b"]
    for wrong in ('["a", 3]', "[3]", "[ ]"):
        with pytest.raises(ValueError, match="is no JSON list of texts"):
            stop_strings(wrong)


DAMAGES = {
    "weights cut short": ("model.safetensors", lambda content: content[:100], "SafetensorError"),
    "another type": ("config.json", lambda content: content.replace(b": 32", b': "x"'), "hidden_size"),
    "another shape": ("config.json", lambda content: content.replace(b": 32", b": 64"), "mismatched"),
    "another kind": ("config.json", lambda content: b'{"model_type": "t5"}', "T5Config'> for this kind of AutoModel"),
    "tokenizer": ("tokenizer.json", lambda content: b"{}", "No tokenizer at .* Give a folder"),
    "ends": ("generation_config.json", lambda content: b"[]", "generation_config.json holds \\[\\]"),
}  # fmt: skip


@pytest.mark.parametrize("name, damage, says", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_model_folder_is_one_message(model_folder, prompts, tmp_path, capsys, name, damage, says):
    (model_folder / name).write_bytes(damage((model_folder / name).read_bytes()))
    demos = tmp_path / "demos.jsonl"
    demos.write_text('{"prompt": "ab", "response": "cd"}\n')
    for command in (
        lambda: rlhf("generate", "--model", model_folder, "--prompt", "ab"),
        lambda: rlhf("sft", "--model", model_folder, "--demos", demos, "--out", tmp_path / "sft"),
        lambda: ppo(model_folder, prompts, tmp_path / "run"),
    ):
        assert command() == 2
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert re.search(f"^rlhf (generate|sft|ppo): error: .*{says}", last) and len(last) < 700, last


@pytest.mark.parametrize(
    "spoilt", [["--learning-rate", "1e30", "--batch-size", "8"], ["--temperature", "1e-40"]]
)
def test_a_policy_of_nans_is_one_message(model_folder, prompts, tmp_path, capsys, spoilt):
    assert ppo(model_folder, prompts, tmp_path / "run", *spoilt) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search("probabilities are NaN.*lower learning_rate.*raise temperature", last), last


def test_a_reward_that_exits_is_one_message(model_folder, prompts, tmp_path, capsys, monkeypatch):
    (tmp_path / "exiting_reward.py").write_text("def score(completions):\n    raise SystemExit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert ppo(model_folder, prompts, tmp_path / "run", "--reward", "exiting_reward:score") == 2
    assert "exiting_reward.score raised SystemExit: 0, on completion 0" in capsys.readouterr().err


def test_no_run_is_overwritten_by_accident(model_folder, prompts, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text("precious")
    status = ppo(model_folder, prompts, tmp_path / "run")
    assert_one_message(status, capsys.readouterr(), "is not empty.*--overwrite")
    assert (tmp_path / "run" / "result.json").read_text() == "precious"
    assert ppo(model_folder, prompts, tmp_path / "run", "--overwrite") == 0
    config = tmp_path / "run" / "config.yaml"
    assert rlhf("ppo", "--config", config) == 2  # it does not say --overwrite by itself


def test_a_reward_that_fails_in_the_middle_leaves_a_checkpoint(
    model_folder, prompts, tmp_path, capsys, monkeypatch
):
    (tmp_path / "my_reward.py").write_text(
        "calls = []\n"
        "def score(completions):\n"
        "    calls.append(1)\n"
        "    return [1.0 / (3 - len(calls))] * len(completions)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    status = ppo(model_folder, prompts, tmp_path / "run", "--reward", "my_reward:score")
    assert status == 2 and "division by zero" in capsys.readouterr().err.splitlines()[-1]
    assert TextPPO.load(tmp_path / "run" / "checkpoints" / "last.zip").num_timesteps > 0


def test_other_errors_keep_their_traceback(model_folder, prompts, tmp_path, monkeypatch):
    monkeypatch.setattr("agents.commands.make_ppo", lambda options: {}["bug"])
    with pytest.raises(KeyError):
        ppo(model_folder, prompts, tmp_path / "run")
    monkeypatch.setattr("agents.commands.make_ppo", lambda options: int("bug"))
    monkeypatch.setenv("RLHF_DEBUG", "1")
    with pytest.raises(ValueError, match="bug"):
        ppo(model_folder, prompts, tmp_path / "run")


# --- the rest ---


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_loadable_checkpoint(tmp_path, number):
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "agents.cli",
        "ppo",
        "--env",
        "text_envs/CountLetter-v0",
        "--out",
        str(out),
    ]
    process = subprocess.Popen(
        [*command, "--total-timesteps", "100000000", *SMALL],
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(cli.__file__).parents[1],
    )
    deadline = time.monotonic() + 300  # of a busy machine
    while not ((out / "metrics.jsonl").is_file() and (out / "metrics.jsonl").stat().st_size):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 128 + number
    assert f"stopped by {number.name}" in errors.splitlines()[-1] and "Traceback" not in errors
    assert TextPPO.load(out / "checkpoints" / "last.zip").num_timesteps > 0
    assert json.loads((out / "result.json").read_text())["stopped_by"] == number.name
    AutoModelForCausalLM.from_pretrained(out / "policy")


def test_a_signal_during_fine_tuning_leaves_the_model_as_it_was(model_folder, tmp_path, capsys, monkeypatch):
    demos, out = tmp_path / "demos.jsonl", tmp_path / "sft"
    demos.write_text('{"prompt": "ab", "response": "cd"}\n' * 4)
    real = Progress.on_step_end

    def signalled(self, args, state, control, **kwargs):
        real(self, args, state, control, **kwargs)
        if state.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Progress, "on_step_end", signalled)
    status = rlhf("sft", "--model", model_folder, "--demos", demos, "--out", out, "--max-steps", "1000000")
    assert status == 143 and "stopped by SIGTERM" in capsys.readouterr().err
    assert json.loads((out / "result.json").read_text())["stopped_by"] == "SIGTERM"
    AutoModelForCausalLM.from_pretrained(out)


def test_fine_tuning_goes_on_with_resume(model_folder, tmp_path, capsys, monkeypatch):
    """Killed between two checkpoints, then stopped, it ends with the weights of a run that was neither."""
    demos = tmp_path / "demos.jsonl"
    rows = [{"prompt": "abcd"[: 1 + i % 4], "completion": "efgh"[i % 4 :]} for i in range(12)]
    demos.write_text("\n".join(map(json.dumps, rows)))
    given = ["sft", "--model", model_folder, "--demos", demos, "--max-steps", "12", "--batch-size", "2"]
    given += ["--checkpoint-every", "3", "--learning-rate", "1e-2", "--threads", "1", "--held-out", "0.3"]
    assert rlhf(*given, "--out", tmp_path / "whole") == 0

    steps = iter(range(1, 100))
    real = Progress.on_step_end

    def dying(self, args, state, control, **kwargs):
        real(self, args, state, control, **kwargs)
        if next(steps) == 5:
            raise KeyboardInterrupt  # as hard as it comes in one process: nothing is saved on the way out
        if state.global_step == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Progress, "on_step_end", dying)
    run = [*given, "--out", tmp_path / "run", "--resume"]
    assert rlhf(*run) == 130
    assert not (tmp_path / "run" / "result.json").exists()
    assert rlhf(*run) == 143
    monkeypatch.undo()
    assert "--resume goes on" in capsys.readouterr().err
    assert rlhf(*run[:-1]) == 2
    assert rlhf(*run, "--seed", "3") == 2
    assert "began with other settings: seed was 0 and is 3" in capsys.readouterr().err
    assert rlhf(*run) == 0

    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "run")]
    for result in results:
        del result["seconds"]
    assert results[0] == results[1]
    capsys.readouterr()
    assert rlhf(*run) == 0
    assert "is finished; nothing is left to do" in capsys.readouterr().out


def test_ctrl_c_before_training_is_a_sentence(tmp_path, monkeypatch, capsys):
    def interrupt(options):
        raise KeyboardInterrupt

    monkeypatch.setattr("agents.commands.make_ppo", interrupt)
    assert rlhf("ppo", "--total-timesteps", "9", "--out", tmp_path / "run") == 130
    assert capsys.readouterr().err == "rlhf ppo: interrupted; nothing more was saved.\n"


def test_help_does_not_wait_for_torch():
    code = "import sys; from agents import cli; cli.build_parser(); assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ, cwd=Path(cli.__file__).parents[1]
    )


def test_print_config_shows_every_option(capsys):
    assert rlhf("ppo", "--total-timesteps", "9", "--out", "x", "--print_config") == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["kl_coef"] == 0.05 and printed["total_timesteps"] == 9 and printed["model"] is None


@pytest.mark.parametrize(
    "parser, function", [(training.ppo_parser, TextPPO), (training.sft_parser, finetune)]
)
def test_defaults_are_those_of_the_library(parser, function):
    """Where the command line chooses otherwise, it is on purpose and listed here."""
    different = {"seed", "device", "max_length"} if function is TextPPO else {"samples", "held_out"}
    theirs = inspect.signature(function).parameters
    for name, value in parser().get_defaults().as_dict().items():
        if name in theirs and name not in different and theirs[name].default is not inspect.Parameter.empty:
            assert value == theirs[name].default, name
