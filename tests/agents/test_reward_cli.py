"""`rlhf reward train` and `rlhf reward eval`, from files to a reward that an environment takes."""

import json

import pytest
import torch

from agents import cli
from reward_models import Completion, make
from tests.agents.helpers import LETTERS, small_lm
from text_envs.letters import letter_tokenizer


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A backbone, and pairs in which the answer with more a's is preferred."""
    folder = tmp_path_factory.mktemp("inputs")
    torch.manual_seed(0)
    small_lm().save_pretrained(folder / "model")
    letter_tokenizer(LETTERS).save_pretrained(folder / "model")
    rows = [
        {"prompt": first + second, "chosen": "aaab"[i % 2 :], "rejected": "bcdb"[i % 3 :]}
        for i, (first, second) in enumerate((f, s) for f in "bcdefghijk" for s in "bcdefghijk")
    ]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def trained(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("reward") / "out"
    status = cli.main(
        f"reward train --model {inputs}/model --preferences {inputs}/pairs.jsonl --out {out} --epochs 4 "
        f"--learning-rate 3e-3 --calibrate-on {inputs}/pairs.jsonl --threads 1 --device cpu".split()
    )
    assert status == 0
    return out


def test_the_folder_is_a_reward_on_a_scale(trained):
    reward = make(str(trained))
    good, bad = reward([Completion("bc", "aaab"), Completion("bc", "bcdb")])
    assert good > 0 > bad  # mean 0 on the texts of the pairs


def test_the_result_tells_accuracy_beside_its_baselines(trained):
    result = json.loads((trained / "result.json").read_text())
    assert result["held_out"]["accuracy"]["value"] >= 0.9
    # Of one word each, the answers tell a bag of words nothing about others.
    assert {"bag_of_words", "longer_wins"} <= set(result["held_out"])
    assert result["calibration"]["completions"] == 200
    assert "Accuracy" in (trained / "report.html").read_text()


def test_eval_measures_any_reward(trained, inputs, tmp_path, capsys):
    arguments = f"reward eval --model {trained} --preferences {inputs}/pairs.jsonl --out {tmp_path / 'eval'} --threads 1"
    assert cli.main(arguments.split()) == 0  # its folder names what it learned from
    said = capsys.readouterr()
    assert "a bag of words" in said.out and "held-out" not in said.out
    assert "100 of 100 prompts were trained on, too" in said.err
    result = json.loads((tmp_path / "eval" / "result.json").read_text())
    assert result["shared_prompts"] == result["prompts"] == 100
    assert "were trained on, too" in (tmp_path / "eval" / "report.html").read_text()


@pytest.mark.slow
def test_trl_takes_the_folder_as_its_reward_model(trained, inputs, tmp_path):
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    config = trl.RLOOConfig(
        output_dir=str(tmp_path), max_steps=1, logging_steps=1, save_strategy="no", report_to="none", bf16=False,
        use_cpu=True, per_device_train_batch_size=4, num_generations=2, max_completion_length=4,
    )  # fmt: skip
    prompts = datasets.Dataset.from_dict({"prompt": ["bc", "de"]})
    tokenizer = letter_tokenizer(LETTERS)
    tokenizer.eos_token = "l"
    trainer = trl.RLOOTrainer(
        f"{inputs}/model", str(trained), args=config, train_dataset=prompts, processing_class=tokenizer
    )
    trainer.train()
    (reward,) = (row["reward"] for row in trainer.state.log_history if "reward" in row)
    assert -20 < reward < 20


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--preferences nowhere.jsonl", "nowhere.jsonl does not exist"),
        ("--preferences {inputs}/demos.jsonl", "holds no comparisons or rankings"),
        ("--model ./no/where --preferences {inputs}/pairs.jsonl", "--model ./no/where does not exist"),
        ("--preferences {inputs}/pairs.jsonl --label-smoothing 0.5", "label-smoothing"),
    ],
)
def test_mistakes_get_one_message_and_status_2(inputs, tmp_path, capsys, arguments, message):
    (inputs / "demos.jsonl").write_text('{"prompt": "a", "completion": "b"}')
    line = f"reward train --model {inputs}/model --out {tmp_path / 'out'} {arguments.format(inputs=inputs)}"
    try:
        status = cli.main(line.split())
    except SystemExit as end:
        status = end.code
    said = capsys.readouterr().err
    assert status == 2 and message in said and "Traceback" not in said
