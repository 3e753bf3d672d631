"""The doctor on runs that are broken on purpose: it names the cause of each, and finds nothing wrong with a healthy one."""

import copy
import json
import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from agents import cli
from agents.callbacks import SampleTable
from agents.checks import SelfCheckWarning
from agents.doctor import diagnose, examine
from agents.policy import CausalLMPolicy
from agents.ppo import TextPPO
from agents.runs import RunFolder
from agents.sft import finetune
from tests.agents.helpers import ARCHITECTURES, LETTERS, NO_SPECIAL, letters_env, small_lm
from tests.agents.test_doctor_checks import named, problems, unwell
from text_envs.letters import letter_tokenizer

END = LETTERS.index("l")
PROMPTS = ("a", "bc", "def", "ghijk", "aaaa")
DEMONSTRATIONS = [
    {"prompt": prompt, "response": response}
    for prompt in PROMPTS
    for response in ("abc", "bca", "aab", "ccba")
]
LEARNING_RATE = 1e-3


def tokenizer_with(**tokens):
    tokenizer = letter_tokenizer(LETTERS)
    for name, token in tokens.items():
        setattr(tokenizer, name, token)
    return tokenizer


def fine_tuned(tokenizer):
    torch.manual_seed(0)
    tuned = finetune(
        small_lm().config,
        DEMONSTRATIONS,
        tokenizer,
        max_steps=80,
        learning_rate=1e-2,
        progress=None,
        device="cpu",
    )
    return tuned.model


@pytest.fixture(scope="module")
def tuned():
    """A model that writes three or four of the letters a, b, c, and ends with "l"."""
    return fine_tuned(tokenizer_with(eos_token="l"))


def share_of_a(completions):
    return [one.response.count("a") / 6 for one in completions]


def make_ppo(model, policy="CausalLMPolicy", learning_rate=LEARNING_RATE, temperature=1.0, **env) -> TextPPO:
    torch.manual_seed(0)
    settings = dict(
        tokenizer=tokenizer_with(eos_token="l"), reward_model=share_of_a, max_new_tokens=8, prompts=PROMPTS
    )
    return TextPPO(
        policy,
        letters_env(**(settings | env)),
        policy_kwargs=dict(model=copy.deepcopy(model), temperature=temperature, dtype="float32"),
        learning_rate=learning_rate,
        n_episodes=32,
        n_epochs=2,
        seed=0,
        device="cpu",
    )


def trained(folder, ppo: TextPPO, tokens: int = 1400):
    """Really train, and leave what `rlhf ppo` leaves. Returns the run folder."""
    run = RunFolder(folder)
    settings = {"reference_model": None, "dtype": "float32", "temperature": ppo.policy.lm.temperature}
    run.start(yaml.safe_dump(settings))
    ppo.set_logger(run.logger(tensorboard=False))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", SelfCheckWarning
        )  # what is broken is said at once; the doctor finds it afterwards
        ppo.learn(tokens, SampleTable(every=5, path=run.samples, show=False))
    ppo.logger.close()
    ppo.save_pretrained(run.policy)
    run.write_result({"command": "ppo", "stopped_by": None})
    return run.path


# --- healthy -------------------------------------------------------------------------------------------------------


def test_nothing_is_wrong_with_a_healthy_set_up(tuned):
    findings = examine(make_ppo(tuned), DEMONSTRATIONS)
    assert unwell(findings) == set()
    assert {
        "demonstrations",
        "dropout",
        "temperature",
        "ratio at the start",
        "KL at the start",
        "reward",
    } <= {one.name for one in findings}


@pytest.fixture(scope="module")
def healthy(tuned, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("healthy") / "run", make_ppo(tuned))


def test_nothing_is_wrong_with_a_healthy_run(healthy):
    findings = diagnose(healthy)
    assert unwell(findings) == set()
    assert {"learning rate", "KL", "entropy", "end of replies", "score", "pad token"} <= {
        one.name for one in findings
    }


def test_a_real_model_is_healthy_but_cut_before_its_stories_end(stories, tmp_path):
    (tmp_path / "prompts.txt").write_text("One day, a little girl\nOnce upon a time there was a\n")
    command = [
        "doctor",
        "--model",
        str(stories),
        "--prompts",
        str(tmp_path / "prompts.txt"),
        "--reward",
        "sentiment",
    ]
    assert cli.main([*command, "--max-new-tokens", "32", "--n-episodes", "16", "--threads", "1"]) == 0


# --- broken on purpose ---------------------------------------------------------------------------------------------


def test_1_demonstrations_without_eos_and_a_model_that_never_ends(tmp_path):
    model = fine_tuned(letter_tokenizer(LETTERS))
    settings = dict(tokenizer=letter_tokenizer(LETTERS), eos_token_id=END)

    findings = examine(make_ppo(model, **settings), DEMONSTRATIONS)
    assert problems(findings) == {"demonstrations"}
    assert "20 of 20 do not end" in findings[0].seen
    assert "follows from the demonstrations" in named(findings, "end of replies").advice

    findings = diagnose(trained(tmp_path / "run", make_ppo(model, **settings), tokens=2000))
    assert problems(findings) == {"end of replies"}
    assert "never ends a reply" in findings[0].seen
    assert "demonstrations" in findings[0].advice


def test_2_a_pad_token_that_is_eos_and_a_loss_that_leaves_padding_out(tmp_path):
    tokenizer = tokenizer_with(eos_token="l", pad_token="l")
    torch.manual_seed(0)
    model = small_lm()
    texts = [row["prompt"] + row["response"] + "l" for row in DEMONSTRATIONS]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["input_ids"] == tokenizer.pad_token_id, -100)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(80):
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    findings = examine(make_ppo(model.eval(), tokenizer=tokenizer), DEMONSTRATIONS)
    assert problems(findings) == {"pad token"}
    assert "never ends a reply" in findings[0].seen
    findings = diagnose(trained(tmp_path / "run", make_ppo(model, tokenizer=tokenizer), tokens=2000))
    assert problems(findings) == {"pad token"}


def test_2_a_pad_token_that_is_eos_does_no_harm_to_a_model_that_ends(tuned):
    tokenizer = tokenizer_with(eos_token="l", pad_token="l")
    found = named(examine(make_ppo(tuned, tokenizer=tokenizer)), "pad token")
    assert found.status == "warning"
    assert "Nothing here goes wrong by it" in found.seen


def classifier(**config):
    torch.manual_seed(0)
    settings = NO_SPECIAL | ARCHITECTURES["llama"] | config
    return AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model(
            "llama", vocab_size=len(LETTERS), num_labels=1, initializer_range=0.3, **settings
        )
    ).eval()


@pytest.fixture
def pad_is_eos():
    """A reward as users write it, around a classifier whose pad token is its EOS."""
    tokenizer, model = (
        tokenizer_with(eos_token="l", pad_token="l"),
        classifier(pad_token_id=END, eos_token_id=END),
    )

    def reward(completions):
        batch = tokenizer([one.response + "l" for one in completions], padding=True, return_tensors="pt")
        with torch.no_grad():
            return model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0].tolist()

    return reward


def test_2_a_reward_classifier_whose_pad_token_is_eos(tuned, pad_is_eos):
    ppo = make_ppo(tuned, reward_model=pad_is_eos)
    findings = examine(ppo)
    assert problems(findings) == {"pad token"}
    assert "it reads the token before, and its logits are off by up to" in findings[0].seen


def test_2_the_librarys_own_classifier_pads_rightly_all_the_same(tuned, tmp_path):
    classifier(pad_token_id=END, eos_token_id=END).save_pretrained(tmp_path)
    tokenizer_with(eos_token="l", pad_token="l").save_pretrained(tmp_path)
    findings = examine(make_ppo(tuned, reward_model=str(tmp_path)))
    assert problems(findings) == set()
    assert any("its scores are right" in one.seen for one in findings if one.name == "pad token")
    assert named(diagnose(tmp_path), "pad token").status == "warning"


def test_3_a_constant_reward(tuned, tmp_path):
    settings = dict(reward_model=lambda completions: [0.5] * len(completions))
    assert problems(examine(make_ppo(tuned, **settings))) == {"reward"}
    findings = diagnose(trained(tmp_path / "run", make_ppo(tuned, **settings)))
    assert problems(findings) == {"reward"}
    assert "constant: 0.5 for every reply" in findings[0].seen


def test_4_a_hundred_times_the_learning_rate(tuned, tmp_path):
    findings = diagnose(trained(tmp_path / "run", make_ppo(tuned, learning_rate=100 * LEARNING_RATE)))
    assert problems(findings) == {"learning rate"}
    assert "(learning rate 0.1)" in findings[0].seen
    assert named(findings, "KL").advice == "Likely follows from the learning rate: mend that first."


def test_4_a_learning_rate_that_changes_nothing(tuned, tmp_path):
    findings = diagnose(trained(tmp_path / "run", make_ppo(tuned, learning_rate=1e-9), tokens=500))
    assert problems(findings) == {"learning rate"}
    assert "change nothing" in findings[0].seen


class DropoutInTheUpdate(CausalLMPolicy):
    """What Stable-Baselines3's modes do to a Hugging Face model that is not kept in eval mode."""

    def set_training_mode(self, mode):
        nn.Module.train(self.lm.model, mode)


def test_5_dropout_on(tmp_path):
    model = small_lm("gpt2", resid_pdrop=0.1, attn_pdrop=0.0, embd_pdrop=0.0)
    findings = examine(make_ppo(model, DropoutInTheUpdate))
    assert problems(findings) == {"dropout"}
    assert "resid_pdrop 0.1" in findings[0].seen
    findings = diagnose(trained(tmp_path / "run", make_ppo(model, DropoutInTheUpdate)))
    assert problems(findings) == {"dropout"}


def test_5_dropout_in_the_config_is_harmless_here(tmp_path):
    model = small_lm("gpt2", resid_pdrop=0.1, attn_pdrop=0.0, embd_pdrop=0.0)
    found = named(examine(make_ppo(model)), "dropout")
    assert (found.status, "it is off" in found.seen) == ("ok", True)
    found = named(diagnose(trained(tmp_path / "run", make_ppo(model))), "ratio at the start")
    assert (found.status, "resid_pdrop 0.1) is off" in found.seen) == ("ok", True)


class SharperSamples(CausalLMPolicy):
    """Samples at half the temperature that its loss computes."""

    def act(self, *arguments, **options):
        self.lm.temperature /= 2
        try:
            return super().act(*arguments, **options)
        finally:
            self.lm.temperature *= 2


def test_6_a_temperature_that_differs_between_sampling_and_training(tmp_path):
    torch.manual_seed(1)  # of the random model: 7 or 8 standard errors, of the 5 that are a problem
    findings = examine(make_ppo(small_lm(), SharperSamples))
    assert problems(findings) == {"temperature"}
    guessed = float(findings[0].seen.split("as if at temperature ")[1].split(",")[0])
    assert guessed == pytest.approx(0.5, abs=0.05)
    findings = diagnose(trained(tmp_path / "run", make_ppo(small_lm(), SharperSamples)))
    assert problems(findings) == {"temperature"}


class SharperSamplesThatHideIt(SharperSamples):
    """And records the log-probabilities of the loss, so that the ratio is 1."""

    def act(self, slots, ids, lengths, rows, legal=None, deterministic=False):
        actions, values, _ = super().act(slots, ids, lengths, rows, legal, deterministic)
        states = {
            "input_ids": torch.from_numpy(ids[rows]),
            "attention_mask": torch.from_numpy(np.arange(ids.shape[1]) < lengths[rows, None]),
        }
        return actions, values, self.evaluate_actions(states, actions)[1]


def test_6_a_temperature_that_the_log_probabilities_do_not_show():
    torch.manual_seed(1)
    findings = examine(make_ppo(small_lm(), SharperSamplesThatHideIt))
    assert problems(findings) == {"temperature"}


class LossAtAnotherTemperature(TextPPO):
    def loss(self, batch):
        self.policy.lm.temperature = 0.5
        try:
            return super().loss(batch)
        finally:
            self.policy.lm.temperature = 1.0


def test_6_a_loss_at_another_temperature(tuned, monkeypatch, tmp_path):
    monkeypatch.setattr("tests.agents.test_doctor.TextPPO", LossAtAnotherTemperature)
    assert problems(examine(make_ppo(tuned))) == {"ratio at the start"}
    findings = diagnose(trained(tmp_path / "run", make_ppo(tuned), tokens=500))
    assert "ratio at the start" in problems(findings)


def test_6_a_policy_trained_at_a_temperature_that_its_folder_does_not_tell(tuned, tmp_path):
    run = trained(tmp_path / "run", make_ppo(tuned, temperature=0.7), tokens=500)
    assert not [found for found in diagnose(run) if found.name == "temperature"]  # the folder tells it
    (run / "policy" / "generation_config.json").unlink()
    findings = diagnose(run)
    assert problems(findings) == set()
    found = named(findings, "temperature")
    assert found.status == "warning"
    assert "sampled with temperature 1" in found.seen and "training samples at temperature 0.7" in found.seen


def test_a_reference_that_is_not_the_policy(tuned):
    ppo = make_ppo(tuned)
    ppo.reference.temperature = 0.7
    assert problems(examine(ppo)) == {"KL at the start"}


def test_a_reward_that_fails_depends_on_its_batch_or_on_chance(tuned):
    rng = np.random.default_rng(0)
    faults = {
        "reward": ("problem", lambda completions: [math.nan] * len(completions)),
        "reward in batches": (
            "problem",
            lambda completions: [one.response.count("a") + 0.1 * len(completions) for one in completions],
        ),
        "reward noise": ("warning", lambda completions: rng.normal(size=len(completions))),
    }
    for name, (status, reward) in faults.items():
        assert named(examine(make_ppo(tuned, reward_model=reward)), name).status == status


def test_scores_beyond_the_clip_and_scores_that_do_not_tell_replies_apart(tuned):
    far = examine(make_ppo(tuned, reward_model=lambda cs: [100.0 * len(c.response) for c in cs]))
    assert "beyond the clip of ±10" in named(far, "reward").seen
    same = examine(make_ppo(tuned, reward_model=lambda cs: [float(len(c.prompt)) for c in cs]))
    assert named(same, "reward within prompts").status == "warning"
    small = examine(make_ppo(tuned, reward_model=lambda cs: [len(c.response) / 1000 for c in cs]))
    assert "One nat of KL costs 0.05" in named(small, "reward").seen


# --- the command ---------------------------------------------------------------------------------------------------


def test_the_command_prints_keeps_and_returns_0_where_all_is_well(healthy, capsys):
    assert cli.main(["doctor", str(healthy), "--threads", "1"]) == 0
    assert "no problems, no warnings" in capsys.readouterr().out
    kept = json.loads((healthy / "doctor.json").read_text())
    assert (kept["problems"], kept["warnings"]) == (0, 0)
    assert {"name": "numbers", "status": "ok", "seen": "All logged numbers are finite."} in kept["findings"]


def test_the_command_returns_1_where_something_is_wrong_and_speaks_json(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text('{"objective/scores": 0.5, "objective/scores_std": 0.0}\n')
    folder = tmp_path
    assert cli.main(["doctor", str(folder), "--json", "--threads", "1"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["findings"][0]["name"] == "reward"
    assert printed == json.loads((folder / "doctor.json").read_text())


def test_a_folder_that_cannot_be_written_to_is_examined_all_the_same(healthy, monkeypatch, capsys):
    def full(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agents.doctor.write_json", full)
    assert cli.main(["doctor", str(healthy), "--threads", "1"]) == 0
    assert "was not written: [Errno 28] No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "what is to be examined?"),
        (["{folder}", "--env", "text_envs/Copy-v0"], "not both"),
        (["{folder}"], "holds nothing to examine"),
        (["nowhere"], "is no folder"),
        (["--env", "text_envs/Nothing-v0"], "Nothing"),
        (["--model", "{folder}/nowhere", "--env", "text_envs/SupportReply-v0"], "does not exist"),
    ],
)
def test_mistakes_of_the_user(tmp_path, capsys, arguments, says):
    filled = [argument.format(folder=tmp_path) for argument in arguments]
    assert cli.main(["doctor", *filled, "--threads", "1"]) == 2
    assert says in capsys.readouterr().err


def test_a_set_up_from_the_command_line_with_a_tokenizer_of_another_model(tuned, tmp_path, capsys):
    tuned.save_pretrained(tmp_path)
    tokenizer_with(eos_token="l").save_pretrained(tmp_path)
    rows = "".join(json.dumps(row) + "\n" for row in DEMONSTRATIONS)
    (tmp_path / "demos.jsonl").write_text(rows)
    command = ["doctor", "--model", str(tmp_path), "--prompts", str(tmp_path / "demos.jsonl"), "--demos"]
    command += [
        str(tmp_path / "demos.jsonl"),
        "--reward",
        "distinct_n",
        "--max-new-tokens",
        "8",
        "--json",
        "--threads",
        "1",
    ]
    cli.main(command)
    printed = json.loads(capsys.readouterr().out)
    assert [one["status"] for one in printed["findings"] if one["name"] == "demonstrations"] == ["ok"]

    letter_tokenizer(LETTERS + "XYZ").save_pretrained(tmp_path)
    assert cli.main(command) == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["name"] == "vocabulary"
