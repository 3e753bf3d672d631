"""The loop: every stage runs, a run goes on where it was, and what changed is named."""

import json
import signal

import pytest
from transformers import AutoModelForCausalLM

from agents import cli
from agents.checkpoint import read
from agents.ledger import LedgerError, fingerprint
from agents.options.loop import HEAD, loop_parser, settings_from
from agents.rlhf import Loop
from agents.settings import FeedbackSettings, LoopSettings
from agents.stages import Stopped
from reward_models import make
from reward_models.preferences.store import FeedbackStore
from tests.agents.looping import small_settings, write_inputs

STAGES = [
    "sft",
    "sft-evaluate",
    *(f"round-1/{s}" for s in ("sample", "compare", "reward", "ppo", "evaluate")),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def run(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    Loop(small_settings(inputs), folder).run()
    return folder


def test_every_stage_leaves_its_record_and_what_it_made(run):
    for stage in STAGES:
        assert json.loads((run / stage / "stage.json").read_text())["stage"] == stage
    for folder in ("sft", "round-1/ppo/policy"):
        AutoModelForCausalLM.from_pretrained(run / folder)
    assert make(str(run / "round-1/reward/member-0")) is not None
    with FeedbackStore(run / "feedback.db") as store:
        origins = {origin.model for comparison in store.comparisons() for origin in comparison.origins}
    assert origins == {
        fingerprint(run / "sft", weights_only=True)
    }  # every answer can be traced to its policy


def test_the_result_and_the_pages_for_people_are_there(run):
    result = json.loads((run / "result.json").read_text())
    assert set(result["stages"]) == set(STAGES)
    evaluated = result["stages"]["round-1/evaluate"]
    assert set(evaluated["scores"]) == {"gold", "reward"} and "sft" in evaluated["win_rate"]
    report = (run / "report.html").read_text()
    assert all(
        f">{heading}</h2>" in report for heading in ("The policies", "Fine-tuning", "Round 1", "The raters")
    )
    assert "Gold score, SFT" in report and "loss, nats per token" in report
    assert "Each pair had one rater, so agreement is unknown" in report
    assert "simulated" in (run / "round-1/ppo/policy/MODEL_CARD.md").read_text()


def test_the_losses_are_kept(run):
    def result(stage):
        return json.loads((run / stage / "stage.json").read_text())["result"]

    assert len(result("sft")["losses"]) == 4  # steps
    (losses,) = result("round-1/reward")["losses"]
    assert losses[0] > losses[-1] > 0


def test_no_held_out_prompt_is_trained_on(run):
    def prompts(path):
        return {json.loads(line)["prompt"] for line in (run / path).read_text().splitlines()}

    held_out = prompts("sft-evaluate/samples.jsonl")
    assert len(held_out) == 8 and not held_out & prompts("round-1/sample/samples.jsonl")


def test_a_finished_run_is_read_and_not_run_again(run, inputs, monkeypatch):
    monkeypatch.setattr("agents.loop_stages.fine_tune", None)
    monkeypatch.setattr("agents.loop_stages.improve", None)
    before = json.loads((run / "result.json").read_text())
    assert Loop(None, run).run() == before  # as config.yaml says


def test_a_changed_setting_is_named(run, inputs):
    settings = small_settings(inputs)
    settings.ppo.kl_coef = 0.2
    with pytest.raises(LedgerError, match=r"round-1/ppo .* ppo\.kl_coef was 0\.05 and is 0\.2"):
        Loop(settings, run).run()
    Loop(small_settings(inputs), run).run()


@pytest.mark.parametrize(
    "change, named",
    [
        (dict(max_new_tokens=9), r"Stage sft .* task\.max_new_tokens was 6 and is 9"),
        (dict(max_prompt_tokens=5), r"Stage sft .* task\.max_prompt_tokens was 2 and is 5"),
        (dict(stop="x"), r'Stage sft .* task\.stop was \[\] and is \["x"\]'),
        (dict(eos_token_id=[1, 2]), r"Stage sft .* task\.eos_token_ids was \[.*\] and is \[1, 2\]"),
        (dict(judge={"name": "length", "target": 3}), r'Stage sft-evaluate .* judge was "tests.* and is \{'),
    ],
)
def test_a_changed_task_or_judge_is_named(run, inputs, change, named):
    with pytest.raises(LedgerError, match=named):
        Loop(small_settings(inputs, **change), run).run()


def test_a_changed_file_is_named_with_its_path(run, inputs, tmp_path):
    demos = tmp_path / "other.jsonl"
    demos.write_text('{"prompt": "bb", "response": "ccc"}\n')
    with pytest.raises(LedgerError, match=rf"demos \({demos}\) was sha256 [0-9a-f]{{12}} and is sha256"):
        Loop(small_settings(inputs, demos=str(demos)), run).run()


def test_a_refused_call_leaves_the_run_as_it_was(run, capsys):
    config = (run / "config.yaml").read_text()
    assert cli.main(["loop", "--out", str(run), "--ppo.kl_coef", "0.3"]) == 2
    assert "ppo.kl_coef was 0.05 and is 0.3" in capsys.readouterr().err
    assert (run / "config.yaml").read_text() == config
    assert cli.main(["loop", "--out", str(run)]) == 0


def test_options_lie_over_the_settings_that_the_folder_holds(tmp_path):
    def settings(*options):
        return settings_from(loop_parser().parse_args(["--out", str(tmp_path), *options]))

    (tmp_path / "config.yaml").write_text(f"{HEAD}env: mine\nrounds: 1\nfeedback: {{votes: 5, port: 1}}\n")
    (tmp_path / "anew.yaml").write_text("env: other\n")
    found = settings("--rounds", "2", "--feedback.port", "8001")  # 2 is the default, and said all the same
    assert (found.env, found.rounds, found.feedback.votes, found.feedback.port) == ("mine", 2, 5, 8001)
    found = settings("--config", str(tmp_path / "anew.yaml"))
    assert (found.env, found.rounds, found.feedback.votes) == ("other", 2, None)


def test_options_may_be_spelt_as_those_of_the_other_commands(tmp_path):
    parsed = loop_parser().parse_args(
        [
            "--out",
            "x-y",
            "--max-new-tokens=7",
            "--ppo.kl-coef",
            "0.2",
            "--stop",
            "a-b",
            "--preferences",
            "p.jsonl",
        ]
    )
    found = settings_from(parsed)
    assert (parsed.out, found.max_new_tokens, found.ppo.kl_coef) == ("x-y", 7, 0.2)
    assert (found.stop, found.preferences) == (["a-b"], ["p.jsonl"])


@pytest.mark.parametrize("name", ["config.yaml", "notes.txt"])
def test_a_folder_of_something_else_is_refused_and_left_alone(inputs, tmp_path, name):
    (tmp_path / name).write_text("# rlhf ppo --config this_file\n")
    with pytest.raises(ValueError, match="is no run of the loop, and would be overwritten"):
        Loop(small_settings(inputs), tmp_path)
    with pytest.raises(NotADirectoryError, match=f"{name} is a file"):
        Loop(small_settings(inputs), tmp_path / name)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["# rlhf ppo --config this_file\n"]


def test_a_stage_can_be_run_again_with_all_after_it(inputs, tmp_path):
    small = small_settings(inputs, rounds=0)
    Loop(small, tmp_path).run()
    small.evaluation.temperature = 0.5
    Loop(small, tmp_path, redo="sft-evaluate").run()
    assert list(tmp_path.glob("replaced/*/sft-evaluate/stage.json"))
    assert not list(tmp_path.glob("replaced/*/sft/stage.json"))


@pytest.mark.parametrize("at", ["fine_tune", "answer", "learn_reward", "improve", "evaluate"])
def test_a_run_stopped_in_any_stage_goes_on_to_the_same_end(run, inputs, tmp_path, monkeypatch, at):
    """SIGTERM in the middle of a stage; the second call finishes with the weights of the run that was never stopped."""
    import agents.loop_stages

    real = getattr(agents.loop_stages, at)

    def stopped_there(*args, **kwargs):
        signal.raise_signal(signal.SIGTERM)
        return real(*args, **kwargs)

    monkeypatch.setattr(agents.loop_stages, at, stopped_there)
    with pytest.raises(Stopped):
        Loop(small_settings(inputs), tmp_path).run()
    monkeypatch.setattr(agents.loop_stages, at, real)
    Loop(small_settings(inputs), tmp_path).run()
    for folder in ("round-1/ppo/policy", "round-1/reward/member-0"):
        assert fingerprint(tmp_path / folder, True) == fingerprint(run / folder, True)


def test_a_slow_judge_is_cut_short_after_a_signal(inputs, tmp_path):
    """It would take an hour; the stage is run again when the run goes on."""
    settings = small_settings(inputs, demos=None, rounds=0, judge="tests.agents.looping:takes_an_hour")
    with pytest.raises(Stopped) as stopped:
        Loop(settings, tmp_path).run()
    assert stopped.value.args == (signal.SIGTERM,)
    assert (tmp_path / "sft/stage.json").exists() and not (tmp_path / "sft-evaluate/stage.json").exists()


def test_a_run_that_waits_for_people_stops_and_keeps_their_votes(inputs, tmp_path, monkeypatch, capsys):
    settings = small_settings(inputs, feedback=FeedbackSettings(rater="web", port=0, votes=3))
    said = []

    def one_vote_then_term(self, *args, **kwargs):
        rater = self.rater("Ann")
        assignment = self.assign(rater.id)
        self.vote(assignment.id, {"choice": "left"}, key=f"key-{len(said)}", rater=rater.id)
        said.append(assignment.item)
        signal.raise_signal(signal.SIGTERM)
        return self.progress().votes

    monkeypatch.setattr(FeedbackStore, "wait", one_vote_then_term)
    for votes in (1, 2, 3):
        with pytest.raises(Stopped):
            Loop(settings, tmp_path).run()
        with FeedbackStore(tmp_path / "feedback.db") as store:
            assert store.progress().votes == votes
    said_at_the_start = " ".join(capsys.readouterr().out.split())
    for votes in (0, 1, 2):
        assert f"({votes} of 3 votes are in;" in said_at_the_start
    # The third one was enough: the stage was done before the run stopped.
    assert json.loads((tmp_path / "round-1/compare/stage.json").read_text())["result"]["votes"] == 3


def test_existing_preferences_start_the_first_round(run, inputs, tmp_path):
    given = [str(run / "round-1/compare/comparisons.jsonl")]
    Loop(small_settings(inputs, preferences=given), tmp_path).run()
    made = json.loads((tmp_path / "round-1/reward/stage.json").read_text())
    assert made["made_from"]["preferences"] == [fingerprint(given[0])]
    alone = json.loads((run / "round-1/reward/stage.json").read_text())
    assert made["result"]["comparisons"] == 2 * alone["result"]["comparisons"]


def test_preferences_alone_are_enough_where_nobody_is_asked(run, inputs, tmp_path):
    given = [str(run / "round-1/compare/comparisons.jsonl")]
    settings = small_settings(inputs, preferences=given, judge=None, feedback=FeedbackSettings(votes=0))
    Loop(settings, tmp_path).run()
    learned = json.loads((tmp_path / "round-1/reward/stage.json").read_text())["result"]
    alone = json.loads((run / "round-1/reward/stage.json").read_text())["result"]
    assert learned["comparisons"] == alone["comparisons"] and "agreement_with_gold" not in learned
    scores = json.loads((tmp_path / "last_reward.json").read_text())  # in which all policies can be compared
    assert [len(scores[f"{stage}evaluate"]) for stage in ("sft-", "round-1/")] == [8, 8]
    report = (tmp_path / "report.html").read_text()
    assert "Reward score, SFT" in report and "score by the last reward model</text>" in report
    settings.preferences = []
    with pytest.raises(ValueError, match=r"feedback\.votes is 0, so nobody compares"):
        Loop(settings, tmp_path / "other")


def test_a_finished_reward_model_skips_the_first_comparing(run, inputs, tmp_path):
    folder = str(run / "round-1/reward/member-0")
    Loop(small_settings(inputs, reward_model=folder), tmp_path).run()
    assert not (tmp_path / "round-1/compare/comparisons.jsonl").exists()
    assert (tmp_path / "round-1/ppo/policy/model.safetensors").exists()


def test_reward_models_start_from_mismatched_demonstrations(inputs, tmp_path):
    rows = [{"prompt": first + second, "response": second * 3} for first in "bcdef" for second in "bcde"]
    settings = small_settings(inputs, demos=rows)
    settings.reward.mismatches = 30
    Loop(settings, tmp_path).run()
    record = json.loads((tmp_path / "reward-start/stage.json").read_text())
    assert record["result"]["mismatches"] > 15
    learned = json.loads((tmp_path / "round-1/reward/stage.json").read_text())
    assert learned["made_from"]["starts_from"] == [fingerprint(tmp_path / "reward-start", weights_only=True)]
    settings.demos = None
    with pytest.raises(ValueError, match=r"reward\.mismatches is made of demonstrations"):
        Loop(settings, tmp_path)


def test_the_critic_may_start_from_the_round_s_reward_model(run, inputs, tmp_path):
    settings = small_settings(inputs, reward_model=str(run / "round-1/reward/member-0"))
    settings.ppo.value_model, settings.ppo.gradient_checkpointing = "from_reward_model", True
    settings.ppo.max_tokens_per_batch = 40
    Loop(settings, tmp_path).run()
    held = read(tmp_path / "round-1/ppo/checkpoints/last.zip")
    assert "critic.model.model.embed_tokens.weight" in held["policy.safetensors"]
    assert held["settings.json"]["attributes"]["max_tokens_per_batch"] == 40
    assert held["settings.json"]["policy_kwargs"]["gradient_checkpointing"]
    settings.reward.ensemble = 2
    with pytest.raises(ValueError, match="a critic starts from one model"):
        Loop(settings, tmp_path)


def test_an_ensemble_chooses_what_to_compare(inputs, tmp_path):
    settings = small_settings(inputs, rounds=2)
    settings.reward.ensemble, settings.feedback.pairing, settings.samples.responses = 2, "uncertain", 3
    Loop(settings, tmp_path).run()
    assert (tmp_path / "round-2/reward/member-1/config.json").exists()


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(env=None, prompts=None), "Give either env"),
        (dict(env="text_envs/CountLetter-v0"), "Give either env"),
        (dict(model=None), "name one with model"),
        (dict(judge=None), "nothing says what it prefers"),
        (dict(rounds=-1), "rounds is -1"),
    ],
)
def test_settings_that_contradict_one_another_are_named(inputs, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        Loop(small_settings(inputs, **settings), tmp_path).run()


def test_the_command_goes_on_with_the_folder_alone(run, capsys):
    assert cli.main(["loop", "--out", str(run)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert cli.main(["report", str(run)]) == 0


def test_the_command_names_what_is_missing(tmp_path, capsys):
    assert cli.main(["loop", "--out", str(tmp_path)]) == 2
    assert "it has no config.yaml" in capsys.readouterr().err


def test_yaml_describes_a_run(inputs, tmp_path):
    (tmp_path / "run.yaml").write_text(
        f"model: {inputs / 'model'}\nprompts: {inputs / 'prompts.txt'}\njudge: tests.agents.looping:likes_a\n"
        "rounds: 0\nmax_new_tokens: 4\nevaluation: {prompts: 4}\n"
    )
    assert cli.main(["loop", "--config", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "out")]) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["stages"]["sft-evaluate"]["length"]["mean"] == 4.0


def test_settings_are_plain_json():
    assert json.loads(json.dumps(LoopSettings().to_json()))["ppo"]["reference"] == "sft"
