"""Several processes are one: the same gradients, KL and weights, one writer, one checkpoint for any number of them."""

import json
import os
import re
import signal
import warnings
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch.distributed.tensor import DTensor

import agents
from agents import checkpoint, cli, processes
from agents.checks import SelfCheckWarning
from agents.episodes import Episode
from agents.nlpo import TextNLPO
from agents.ppo import TextPPO
from agents.runs import RunFolder
from reward_models import last_layer
from tests.agents.forked import Forks
from tests.agents.helpers import LETTERS, letters_env, small_lm
from tests.agents.test_golden import ALGORITHMS
from text_envs.letters import letter_tokenizer

HERE = "tests.agents.test_processes."
N_EPISODES = 16
DDP, FSDP2 = (
    {},
    {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"},
)
both_ways = pytest.mark.parametrize("way", [DDP, FSDP2], ids=["DDP", "FSDP2"])


@pytest.fixture(scope="module")
def forks():
    with Forks() as forks:
        yield forks


def flat(tensors) -> np.ndarray:
    whole = [t.full_tensor() if isinstance(t, DTensor) else t for t in tensors]
    return torch.cat([tensor.detach().flatten() for tensor in whole]).numpy()


# --- one update of two processes is that of one ----------------------------------------------------------------------


def ragged_episodes(seed: int) -> list[Episode]:
    """Prompts of 1 to 5 letters, each answered four times in 1 to 6 letters, written by nobody."""
    rng = np.random.default_rng(seed)
    episodes = []
    for group in range(N_EPISODES // 4):
        prompt = rng.integers(len(LETTERS), size=rng.integers(1, 6))
        for _ in range(4):
            response = rng.integers(len(LETTERS), size=rng.integers(1, 7))
            rewards = np.zeros(len(response), dtype=np.float32)
            rewards[-1] = score = float(rng.normal()) * (group != 1)  # group 1 is even: dapo leaves it out
            positions = np.arange(len(prompt), len(prompt) + len(response))
            log_probs = np.zeros(len(response), dtype=np.float32)
            ids = np.concatenate([prompt, response])
            episodes.append(Episode(ids, positions, log_probs, rewards, score=score, group=group))
    return episodes


def make(name="TextPPO", env=None, **kwargs):
    torch.set_num_threads(1)
    torch.manual_seed(
        1 + processes.rank()
    )  # that the first process's weights count is a part of what is tried
    settings = dict(
        n_episodes=N_EPISODES, batch_size=5, micro_batch_size=2, n_epochs=2, learning_rate=1e-3, kl_target=1.0,
        kl_horizon=100, reference_model=small_lm(), seed=0, device="cpu",
        policy_kwargs=dict(model=small_lm(), dtype="float32"),
    )  # fmt: skip
    algorithm = getattr(agents, name.partition(",")[0])
    return algorithm("CausalLMPolicy", env or letters_env(), **(settings | ALGORITHMS[name] | kwargs))


def updates(name: str, n: int, **kwargs) -> dict[str, np.ndarray]:
    """Learn from n rollouts, each process from its share of the episodes; what came of it, by the quantity's name."""
    model = make(name, **kwargs)
    model._setup_learn(1)
    gradients, kls = [], []
    step = model.policy.optimizer.step

    def noted_step():
        gradients.append(flat(parameter.grad for parameter in model.policy.parameters()))
        step()

    model.policy.optimizer.step = noted_step
    start, own = processes.rank() * model.n_own_episodes, model.n_own_episodes
    for update in range(n):
        model.rollout_buffer.reset()
        model.rollout_buffer.episodes = ragged_episodes(update)[start : start + own]
        model._prepare(model.rollout_buffer)
        kls.append([model.logger.name_to_value["objective/kl"], model.kl_controller.coef])
        model.train()
    logged = ["approx_kl", "loss"] + ["explained_variance"] * model.uses_critic
    return {
        "gradients": np.stack(gradients),
        "KL and its coefficient": np.array(kls),
        "weights": flat(model.policy.parameters()),
        **{name: np.array(model.logger.name_to_value[f"train/{name}"]) for name in logged},
    }


def three_updates() -> dict[str, np.ndarray]:
    # However little it saves here, the last layer is computed in parts.
    with warnings.catch_warnings(), patch.object(last_layer, "WORTHWHILE_PRODUCTS", 0):
        warnings.simplefilter("ignore", SelfCheckWarning)  # nobody wrote these episodes
        return updates("TextPPO", 3, ent_coef=0.01)


def an_update_of_each() -> dict[str, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SelfCheckWarning)
        return {f"{name}: {key}": a for name in ALGORITHMS for key, a in updates(name, 1, n_epochs=1).items()}


def save(function: str, path: str) -> None:
    found = globals()[function]()
    if processes.is_first():
        np.savez(path, **found)


@pytest.fixture(scope="module")
def of_one():
    return three_updates()


def assert_equal(found, expected):
    assert set(found) == set(expected)
    for name in expected:
        assert found[name] == pytest.approx(expected[name], abs=1e-5), name


@both_ways
def test_three_updates_of_two_processes_are_those_of_one(forks, of_one, tmp_path, way):
    forks.run(HERE + "save", "three_updates", tmp_path / "found.npz", **way)
    # 3 updates of 2 epochs of 4 minibatches: 5, 5, 5 and 1 episodes, so that each time one process has none of the last
    assert len(of_one["gradients"]) == 24 and np.abs(of_one["gradients"]).max() > 0.1
    assert_equal(np.load(tmp_path / "found.npz"), of_one)


def test_an_update_of_every_algorithm_in_two_processes_is_that_of_one(forks, tmp_path):
    forks.run(HERE + "save", "an_update_of_each", tmp_path / "found.npz")
    assert_equal(np.load(tmp_path / "found.npz"), an_update_of_each())


# --- who plays what --------------------------------------------------------------------------------------------------


def tell_seeds(path: str) -> None:
    model = make(n_envs=4)
    model.policy.predict(model.env.reset())
    parts = {
        "seeds": processes.together(np.array(model.env.venv.np_random_seed)),
        "numbers": processes.together(torch.rand(1).numpy()),
        "weights": processes.together(flat(model.policy.parameters())[None]),
    }
    if processes.is_first():
        np.savez(path, **parts)


def test_processes_have_seeds_and_prompts_of_their_own_and_the_same_weights(forks, tmp_path):
    forks.run(HERE + "tell_seeds", tmp_path / "found.npz")
    found = np.load(tmp_path / "found.npz")
    assert found["seeds"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert found["numbers"][0] != found["numbers"][1]
    assert (found["weights"][0] == found["weights"][1]).all()


def ask_for_nine() -> None:
    make(n_episodes=9)


def test_episodes_that_cannot_be_shared_are_refused(forks):
    statuses, printed = forks.statuses(HERE + "ask_for_nine")
    assert statuses == [1, 1]
    assert "n_episodes / samples_per_prompt is 9: in TextPPO, in 2 processes." in printed
    assert "make it a multiple of 2" in printed


# --- checkpoints -----------------------------------------------------------------------------------------------------


def in_two_parts(folder: str) -> None:
    """A run, and the same run saved, loaded and gone on with, end with the same weights, prompts and counters."""
    whole = make()
    whole.learn(400)
    half = make()
    half.learn(150)
    half.save(f"{folder}/half.zip")
    processes.wait()
    rest = TextPPO.load(f"{folder}/half.zip", env=letters_env(), device="cpu")
    assert 150 <= rest.num_timesteps < 400
    rest.learn(400 - rest.num_timesteps, reset_num_timesteps=False)
    ends = [(m.num_timesteps, m.kl_controller.coef, m.moment()["environment"]) for m in (whole, rest)]
    assert ends[0] == ends[1]
    assert (flat(whole.policy.parameters()) == flat(rest.policy.parameters())).all()


@both_ways
def test_two_processes_go_on_exactly_where_a_checkpoint_left_them(forks, tmp_path, way):
    forks.run(HERE + "in_two_parts", tmp_path, **way)


def renew_mask(path: str) -> None:
    """The mask policy is whole, becomes the policy at the second rollout, and is saved and loaded as it is."""
    model = make("TextNLPO", mask_update_interval=1)
    model.learn(1)
    after_one = flat(model.policy.lm.parameters())
    assert (flat(model.mask_policy.parameters()) != after_one).any()
    model.learn(1, reset_num_timesteps=False)
    assert (flat(model.mask_policy.parameters()) == after_one).all()
    model.save(path)
    processes.wait()
    loaded = TextNLPO.load(path, env=letters_env(), device="cpu")
    assert (flat(loaded.mask_policy.parameters()) == after_one).all()


def test_the_mask_policy_is_renewed_under_fsdp2(forks, tmp_path):
    forks.run(HERE + "renew_mask", tmp_path / "nlpo.zip", **FSDP2)


def load_save_and_learn(given: str, again: str, later: str) -> None:
    model = TextPPO.load(given, env=letters_env(), device="cpu")
    model.save(again)
    model.learn(100, reset_num_timesteps=False)
    model.save(later)


@both_ways
def test_a_checkpoint_loads_in_another_number_of_processes(forks, tmp_path, way):
    given, again, later = (tmp_path / f"{name}.zip" for name in ("given", "again", "later"))
    model = make()
    model.learn(150)
    model.save(given)
    printed = forks.run(HERE + "load_save_and_learn", given, again, later, **way)
    assert "The checkpoint is one of 1 processes, and this is one of 2" in printed
    members, members_again = checkpoint.read(given), checkpoint.read(again)
    for name in ("policy.safetensors", "reference.safetensors", "optimizer.safetensors"):
        assert members[name].keys() == members_again[name].keys()
        assert all(torch.equal(tensor, members_again[name][key]) for key, tensor in members[name].items()), (
            name
        )
    assert members["settings.json"]["attributes"] == members_again["settings.json"]["attributes"]
    with pytest.warns(UserWarning, match="one of 2 processes, and this is one of 1"):
        loaded = TextPPO.load(later, env=letters_env(), device="cpu")
    n_before = loaded.num_timesteps
    assert n_before >= 250 and loaded.policy.optimizer.state
    loaded.learn(1, reset_num_timesteps=False)
    assert n_before < loaded.num_timesteps <= n_before + N_EPISODES * 6


# --- the command ------------------------------------------------------------------------------------------------------


class Reward:
    """How many "a" there are. What else happens at its third rollout in the second process, an environment variable says."""

    def __init__(self):
        self.rollouts = 0

    def __call__(self, completions):
        self.rollouts += 1
        signal_number = int(os.environ.get("SIGNAL_AT_THIRD", 0))
        if signal_number and self.rollouts == 3 and processes.rank() == 1:
            os.kill(os.getpid(), signal_number)
        return [float(c.response.count("a")) for c in completions]


def rlhf(*arguments: str) -> int:
    return cli.main(arguments)


@pytest.fixture
def model_folder(tmp_path):
    torch.manual_seed(0)
    small_lm().save_pretrained(tmp_path / "model")
    letter_tokenizer(LETTERS).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def ppo(model_folder, tmp_path):
    """The arguments of a run of some five rollouts of 8 episodes."""
    (tmp_path / "prompts.txt").write_text("abcdef\nbc\nd\n")
    options = {
        "model": model_folder, "prompts": tmp_path / "prompts.txt", "reward": HERE[:-1] + ":Reward",
        "max-new-tokens": 6, "n-episodes": 8, "batch-size": 4, "n-epochs": 1, "checkpoint-every": 1, "samples-every": 1,
        "threads": 1, "total-timesteps": 220, "out": tmp_path / "run",
    }  # fmt: skip
    return ["ppo", *(str(part) for name, value in options.items() for part in (f"--{name}", value))]


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_whole(run: RunFolder, ppo) -> None:
    """The run is what one process leaves: each update told once, all files, a policy that is the checkpoint's."""
    n_updates = [row["n_updates"] for row in rows(run.metrics)]
    assert n_updates == list(range(1, len(n_updates) + 1)) and len(n_updates) >= 4
    assert len(rows(run.samples)) == 4 * len(n_updates)
    result = json.loads(run.result.read_text())
    assert (
        result["stopped_by"] is None
        and result["num_timesteps"] == rows(run.metrics)[-1]["num_timesteps"] >= 220
    )
    weights = checkpoint.read(run.last_checkpoint)["policy.safetensors"]
    saved = small_lm().from_pretrained(run.policy).state_dict()
    assert torch.equal(saved["model.norm.weight"], weights["lm.model.model.norm.weight"])


@both_ways
def test_a_run_of_two_processes_leaves_what_one_leaves(forks, ppo, tmp_path, way):
    printed = forks.run(HERE + "rlhf", *ppo, **way)
    assert printed.count("run folder") == 1 and len(re.findall("100% of 220", printed)) == 1
    assert_whole(RunFolder(tmp_path / "run", overwrite=True), ppo)


@both_ways
def test_a_killed_process_ends_the_run_and_leaves_a_checkpoint_to_go_on_from(forks, ppo, tmp_path, way):
    fate = {"SIGNAL_AT_THIRD": str(int(signal.SIGKILL))}
    statuses, printed = forks.statuses(HERE + "rlhf", *ppo, **way, **fate)
    assert statuses == [2, -signal.SIGKILL]
    assert "rlhf ppo: error: Another process of this run has ended" in printed and "--resume" in printed
    run = RunFolder(tmp_path / "run", overwrite=True)
    assert not run.result.exists() and len(rows(run.metrics)) == 2
    assert checkpoint.read(run.last_checkpoint)["settings.json"]["attributes"]["iteration"] == 2
    forks.run(HERE + "rlhf", *ppo, "--resume", **way)
    assert_whole(run, ppo)


def test_a_signal_to_one_process_ends_all_of_them_in_order(forks, ppo, tmp_path):
    statuses, printed = forks.statuses(HERE + "rlhf", *ppo, SIGNAL_AT_THIRD=str(int(signal.SIGTERM)))
    assert statuses == [143, 143] and "rlhf: stopped by SIGTERM" in printed
    run = RunFolder(tmp_path / "run", overwrite=True)
    assert json.loads(run.result.read_text())["stopped_by"] == "SIGTERM"
    forks.run(HERE + "rlhf", *ppo, "--resume")
    assert_whole(run, ppo)
