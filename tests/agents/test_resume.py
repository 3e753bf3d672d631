"""Stopped anywhere, saved, and loaded by what might be another process, training goes on as if nothing had happened."""

import itertools
import json
import random
import re

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from agents import checkpoint
from agents.callbacks import SampleTable
from agents.envs import as_vec_env
from agents.packing import CheckpointError
from agents.ppo import TextPPO
from agents.runs import RunFolder
from agents.states import file_position, random_state, rewind
from tests.agents.helpers import letters_env, small_lm

TOTAL = 160  # tokens: four rollouts of 8 episodes, each learned from in 2 epochs of 3 minibatches
WALL_TIMES = re.compile(r'"(wall_time|time/fps|time/time_elapsed)": [^,}]+(, )?')


def endless(rng):
    for _ in itertools.count():
        yield "".join(rng.choice(list("abcdef"), size=rng.integers(1, 5)))


def wrapped(**kwargs):
    return DummyVecEnv(
        [lambda: gym.wrappers.RecordEpisodeStatistics(letters_env(**kwargs)) for _ in range(3)]
    )


ENVS = {
    "vector": letters_env,
    "endless prompts": lambda: letters_env(prompts=endless, max_prompt_tokens=5),
    "masks": lambda: letters_env(allowed_tokens=[0, *range(2, 12)]),
    "one behind wrappers": lambda: gym.wrappers.RecordEpisodeStatistics(letters_env()),
    "three behind wrappers": wrapped,
    "VecMonitor": lambda: VecMonitor(as_vec_env(letters_env(), 5)),
}


def make(env, **kwargs) -> TextPPO:
    torch.manual_seed(0)
    settings = dict(
        n_episodes=8, batch_size=3, n_epochs=2, learning_rate=1e-2, kl_target=3.0, seed=0, device="cpu",
    )  # fmt: skip
    policy_kwargs = dict(model=small_lm(kwargs.pop("architecture", "llama"))) | kwargs.pop(
        "policy_kwargs", {}
    )
    return TextPPO("CausalLMPolicy", env, policy_kwargs=policy_kwargs, **(settings | kwargs))


class Run:
    """A run with a log and samples in a folder of its own, which may be stopped and gone on with."""

    def __init__(self, folder, env=letters_env, callbacks=lambda: [], total=TOTAL, log_interval=1, **kwargs):
        self.folder, self.make_env, self.kwargs = RunFolder(folder), env, kwargs
        self.folder.start("")
        self.callbacks, self.total, self.log_interval = callbacks, total, log_interval
        self.model = make(self.make_env(), **kwargs)

    def learn(self, *more: BaseCallback) -> "Run":
        self.model.set_logger(self.folder.logger(tensorboard=False))
        samples = SampleTable(every=2, n=2, path=self.folder.samples, show=False)
        callbacks = [samples, *self.callbacks(), *more]
        remaining = self.total - self.model.num_timesteps
        try:
            self.model.learn(
                remaining, callbacks, self.log_interval, reset_num_timesteps=not self.model.is_loaded
            )
        finally:
            self.model.logger.close()
        return self

    def reload(self) -> "Run":
        """Save, forget everything, load."""
        path = self.folder.path / "saved.zip"
        self.model.save(path)
        return self.load(path)

    def load(self, path) -> "Run":
        random.seed(7), np.random.seed(7), torch.manual_seed(7)  # noqa: NPY002
        self.model = TextPPO.load(path, env=self.make_env(), device="cpu")
        return self

    def result(self) -> dict:
        """Everything that must be equal, to the bit."""
        model = self.model
        moment = model.moment()
        for name in ("files", "episode_infos"):  # they hold wall times, and lengths of their digits
            del moment[name]
        moment["counters"].pop("_num_timesteps_at_start")
        moment["callbacks"] = {k: v for k, v in moment["callbacks"].items() if not k.startswith("Stop")}
        return {
            "weights": checkpoint.pack_module(model.policy),
            "reference": checkpoint.pack_module(model.reference.model),
            "optimizer": model.policy.optimizer.state_dict(),
            "moment": moment,
            "episodes": [(info["r"], info["l"]) for info in model.ep_info_buffer],
            "metrics": WALL_TIMES.sub("", self.folder.metrics.read_text()),
            "samples": self.folder.samples.read_text(),
        }


def assert_same(one, other, where="result"):
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other)):
            assert_same(a, b, f"{where}[{i}]")
    else:
        assert one == other, where


class StopAt(BaseCallback):
    """Asks the model to stop at a point of the run; `reached` says whether it came to that."""

    def __init__(self, point: str, n: int, error: type[BaseException] | None = None):
        super().__init__()
        self.point, self.n, self.error, self.seen, self.reached = point, n, error, 0, False

    def _count(self, point: str) -> None:
        self.seen += point == self.point
        if point == self.point and self.seen == self.n:
            self.reached = True
            if self.error is not None:
                raise self.error("on purpose")
            self.model.stop()

    def _on_training_start(self) -> None:
        loss = self.model.loss

        def counting(batch):
            self._count("loss")
            return loss(batch)

        self.model.loss = counting

    def _on_rollout_start(self) -> None:
        self._count("rollout start")

    def _on_step(self) -> bool:
        self._count("token")
        return True

    def _on_rollout_end(self) -> None:
        self._count("rollout end")


# Where a run is stopped: before the first token, in the middle of rollouts and updates, at their ends.
POINTS = [
    ("rollout start", 1), ("token", 1), ("token", 5), ("rollout end", 1), ("loss", 1), ("loss", 5), ("rollout start", 2),
    ("loss", 12), ("rollout end", 3), ("token", 20), ("loss", 20),
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The results of runs that nothing stopped, by their settings; each is run once."""
    results = {}

    def run(name, **settings):
        if name not in results:
            results[name] = Run(tmp_path_factory.mktemp("whole"), **settings).learn().result()
        return results[name]

    return run


@pytest.mark.parametrize("point, n", POINTS)
def test_stopped_anywhere_it_goes_on_exactly(whole, tmp_path, point, n):
    run = Run(tmp_path)
    stop = StopAt(point, n)
    run.learn(stop)
    assert stop.reached
    assert_same(run.reload().learn().result(), whole("vector"))


@pytest.mark.parametrize(
    "point, n", [("token", 12), ("loss", 1), ("loss", 3), ("loss", 12), ("rollout end", 2)]
)
def test_an_error_anywhere_costs_nothing(whole, tmp_path, point, n):
    run = Run(tmp_path)
    with pytest.raises(KeyboardInterrupt, match="on purpose"):
        run.learn(StopAt(point, n, KeyboardInterrupt))
    assert_same(run.reload().learn().result(), whole("vector"))


def test_stopped_again_and_again(whole, tmp_path):
    run = Run(tmp_path)
    for point, n in [("token", 9), ("loss", 4), ("token", 3), ("loss", 1), ("loss", 1)]:
        run.learn(StopAt(point, n)).reload()
        run.reload()  # saved as it was loaded
    assert_same(run.learn().result(), whole("vector"))


@pytest.mark.parametrize(
    "name, point, n", [(name, *stop) for name, stop in zip(ENVS, [("token", 9), ("loss", 2)] * 3)]
)
def test_any_of_our_environments(whole, tmp_path, name, point, n):
    expected = whole(name, env=ENVS[name])
    run = Run(tmp_path, env=ENVS[name]).learn(StopAt(point, n))
    assert_same(run.reload().learn().result(), expected)


SETTINGS = {
    "separate critic, temperature": dict(
        architecture="gpt2", policy_kwargs=dict(value_model="separate", temperature=0.7)
    ),
    "logged every second time": dict(log_interval=2),
    "early stopping": dict(target_kl=1e-4, micro_batch_size=2),
    "bfloat16": dict(policy_kwargs=dict(dtype="bfloat16")),
    "small statistics": dict(stats_window_size=5, n_envs=3),
}


@pytest.mark.parametrize("point, n", [("loss", 2), ("rollout start", 3)])
@pytest.mark.parametrize("name", SETTINGS)
def test_any_settings(whole, tmp_path, name, point, n):
    expected = whole(name, **SETTINGS[name])
    run = Run(tmp_path, **SETTINGS[name]).learn(StopAt(point, n))
    assert_same(run.reload().learn().result(), expected)


def test_saving_changes_nothing(whole, tmp_path):
    saving = Run(tmp_path, callbacks=lambda: [CheckpointCallback(1, str(tmp_path / "all"))]).learn().result()
    saving["moment"]["callbacks"].pop("CheckpointCallback 0")
    assert_same(saving, whole("vector"))


# --- callbacks ---------------------------------------------------------------------------------------------------------


def test_checkpoints_of_stable_baselines3_are_resumed(whole, tmp_path):
    run = Run(tmp_path / "run")
    run.learn(CheckpointCallback(3, str(tmp_path / "all")), StopAt("token", 19))
    saved = sorted((tmp_path / "all").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert len(saved) == 6
    run.load(saved[-3])
    assert run.model.num_timesteps <= int(saved[-3].stem.split("_")[2])  # of the rollout's beginning
    assert_same(run.learn().result(), whole("vector"))


class Counter(BaseCallback):
    """A user's callback that says what is to be kept of it."""

    saved_attributes = ("table",)

    def __init__(self):
        super().__init__()
        self.table: list[tuple[int, float]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        scores = np.array([episode.score for episode in self.model.rollout_buffer.episodes])
        self.table.append([self.num_timesteps, scores.mean()])


@pytest.mark.parametrize("point, n", [("token", 13), ("loss", 9)])
def test_evaluations_and_counts_go_on(tmp_path, point, n):
    def callbacks_in(folder):
        def callbacks():
            env = as_vec_env(letters_env(), 2)
            env.seed(3)
            evaluation = EvalCallback(
                env, n_eval_episodes=3, eval_freq=5, deterministic=False, verbose=0, warn=False,
                log_path=str(folder), best_model_save_path=str(folder), callback_on_new_best=Counter(),
            )  # fmt: skip
            return [Counter(), evaluation]

        return callbacks

    whole = Run(tmp_path / "whole", callbacks=callbacks_in(tmp_path / "whole")).learn()
    run = Run(tmp_path / "run", callbacks=callbacks_in(tmp_path / "run")).learn(StopAt(point, n))
    run.reload().learn()
    assert_same(run.result(), whole.result())
    evaluations = [np.load(tmp_path / name / "evaluations.npz") for name in ("whole", "run")]
    assert len(evaluations[0]["timesteps"]) > 2
    for name in ("timesteps", "results", "ep_lengths"):
        assert (evaluations[0][name] == evaluations[1][name]).all()
    best = [checkpoint.read(tmp_path / name / "best_model.zip") for name in ("whole", "run")]
    weights = [dict(sorted(members["policy.safetensors"].items())) for members in best]
    assert_same(weights[0], weights[1])


# --- in the same process ----------------------------------------------------------------------------------------------


def test_an_update_cut_short_is_finished_by_the_next_learn(tmp_path):
    run = Run(tmp_path)
    run.learn(StopAt("loss", 5))
    update, rows = run.model.update, len(run.folder.metrics.read_text().splitlines())
    assert (update.epoch, update.minibatch) == (
        1,
        2,
    )  # three minibatches in the first pass, two in the second
    assert rows == 0 and run.model._n_updates == 1
    run.model.set_logger(Logger(None, []))
    run.model.learn(0, reset_num_timesteps=False)
    assert run.model.update is None and run.model._n_updates == 2  # no rollout, but the end of the update


def test_scores_of_a_rollout_cut_short_are_not_taken_for_the_next():
    model = make(letters_env())
    model.learn(100, callback=StopAt("token", 6))
    assert len(model.rollout_buffer.episodes) > 0
    model.learn(1)
    for episode in model.rollout_buffer.episodes:
        assert episode.score == episode.completion.response.count("a")


def test_a_new_count_needs_the_weights_alone(tmp_path):
    model = make(letters_env())
    model.learn(100, callback=StopAt("loss", 3))
    model.save(tmp_path / "model.zip")
    loaded = TextPPO.load(tmp_path / "model.zip", env=letters_env(), device="cpu")
    loaded.learn(1)
    assert loaded._n_updates == 2 + model._n_updates and loaded.num_timesteps < 60


# --- what is saved ----------------------------------------------------------------------------------------------------


def test_without_resume_a_checkpoint_is_half_the_size(tmp_path):
    model = make(letters_env()).learn(60)
    model.save(tmp_path / "whole.zip")
    model.save(tmp_path / "small.zip", resume=False)
    names = set(checkpoint.read(tmp_path / "small.zip"))
    assert names == {"settings.json", "policy.safetensors", "reference.safetensors"}
    sizes = {name: (tmp_path / f"{name}.zip").stat().st_size for name in ("whole", "small")}
    assert sizes["small"] < 0.55 * sizes["whole"]
    loaded = TextPPO.load(tmp_path / "small.zip", env=letters_env(), device="cpu")
    assert_same(checkpoint.pack_module(loaded.policy), checkpoint.pack_module(model.policy))
    assert loaded.num_timesteps == model.num_timesteps
    loaded.learn(10, reset_num_timesteps=False)


def test_an_environment_may_come_after_the_load(whole, tmp_path):
    run = Run(tmp_path, env=letters_env).learn(StopAt("token", 9))
    run.model.save(tmp_path / "model.zip")
    run.model = TextPPO.load(tmp_path / "model.zip", device="cpu")
    run.model.save(tmp_path / "again.zip")
    run.model = TextPPO.load(tmp_path / "again.zip", device="cpu")
    run.model.set_env(letters_env())
    assert_same(run.learn().result(), whole("vector"))


def test_attention_as_it_was_chosen(tmp_path):
    model = make(letters_env(), policy_kwargs=dict(model=small_lm(attn_implementation="eager")))
    model.save(tmp_path / "model.zip")
    loaded = TextPPO.load(tmp_path / "model.zip", device="cpu")
    assert loaded.policy.lm.model.config._attn_implementation == "eager"
    assert loaded.reference.model.config._attn_implementation == "eager"


def test_another_seed_gives_other_numbers(tmp_path):
    run = Run(tmp_path).learn(StopAt("rollout start", 2))
    run.model.save(tmp_path / "model.zip")
    following = []
    for seed in (None, 5, 5, 6):
        loaded = TextPPO.load(tmp_path / "model.zip", env=letters_env(), device="cpu")
        loaded.set_random_seed(seed)
        loaded.learn(1, reset_num_timesteps=False)
        following.append([episode.completion for episode in loaded.rollout_buffer.episodes])
    assert following[1] == following[2] and following[0] != following[1] != following[3]
    loaded = TextPPO.load(tmp_path / "model.zip", env=letters_env(), device="cpu", seed=5)
    loaded.learn(1, reset_num_timesteps=False)
    assert [episode.completion for episode in loaded.rollout_buffer.episodes] == following[1]


def test_an_environment_that_cannot_say_where_it_stands_is_named(tmp_path):
    vector = gym.vector.SyncVectorEnv([letters_env] * 3, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    model = make(vector).learn(60)
    model.save(tmp_path / "model.zip")
    loaded = TextPPO.load(tmp_path / "model.zip", env=vector, device="cpu")
    with pytest.warns(UserWarning, match="goes on with other prompts than it would have"):
        loaded.learn(1, reset_num_timesteps=False)
    loaded = TextPPO.load(tmp_path / "model.zip", env=as_vec_env(letters_env(), 2), device="cpu")
    with pytest.warns(UserWarning, match="another one than when the model was saved"):
        loaded.learn(1, reset_num_timesteps=False)


def test_failures_of_the_reward_are_counted_on(tmp_path):
    class Reward:
        def __init__(self):
            self.counts = {"batches": 0}

        def __call__(self, completions):
            self.counts["batches"] += 1
            return [0.0] * len(completions)

    run = Run(tmp_path, env=lambda: letters_env(reward_model=Reward()))
    run.learn(StopAt("loss", 9)).reload().learn()
    rows = [json.loads(line) for line in run.folder.metrics.read_text().splitlines()]
    assert [row["reward_model/batches"] for row in rows] == list(range(1, len(rows) + 1))


def test_half_an_optimiser_step_is_no_point_to_go_on_from(tmp_path, monkeypatch):
    model = make(letters_env())

    def out_of_memory():
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model.policy.optimizer, "step", out_of_memory)
    with pytest.raises(RuntimeError, match="out of memory"):
        model.learn(10)
    with pytest.warns(UserWarning, match="half an update's"):
        model.save(tmp_path / "model.zip")
    assert "moment.json" not in checkpoint.read(tmp_path / "model.zip")
    assert not TextPPO.load(tmp_path / "model.zip", device="cpu").is_loaded


@pytest.mark.parametrize(
    "change",
    [
        lambda moment: moment.pop("dict"),
        lambda moment: moment["dict"].pop(0),
        lambda moment: moment["dict"][4].__setitem__(1, "no generators"),
        lambda moment: moment["dict"].__setitem__(slice(4, None), []),
        lambda moment: moment["dict"][0][1]["dict"][0].__setitem__(1, "many"),  # num_timesteps
        lambda moment: moment["dict"][0][1]["dict"][0].__setitem__(1, -1),
        lambda moment: moment["dict"][1][1]["dict"][0].__setitem__(1, "much"),  # the KL coefficient
    ],
)
def test_a_doctored_moment_is_refused_in_a_sentence(tmp_path, change):
    model = make(letters_env())
    model.save(tmp_path / "model.zip")
    members = checkpoint.read(tmp_path / "model.zip")
    change(members["moment.json"])
    checkpoint.write(tmp_path / "model.zip", members)
    with pytest.raises(CheckpointError, match=r"(Take another|another one)"):
        TextPPO.load(tmp_path / "model.zip", env=letters_env(), device="cpu").learn(
            1, reset_num_timesteps=False
        )


# --- the parts --------------------------------------------------------------------------------------------------------


def test_random_numbers_go_on():
    def draw():
        return random.random(), np.random.normal(), torch.rand(2).tolist()  # noqa: NPY002

    from agents.states import set_random_state

    np.random.normal()  # noqa: NPY002  numpy keeps the second of a pair for later
    state = random_state()
    members = {}
    members["state.json"], members["state.safetensors"] = checkpoint.pack_tree(state)
    expected = [draw(), draw()]
    restored = checkpoint.unpack_tree(
        json.loads(json.dumps(members["state.json"])), members["state.safetensors"]
    )
    set_random_state(restored)
    assert [draw(), draw()] == expected


def test_a_file_is_cut_where_it_was(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("one\n")
    position = file_position(path)
    path.write_text("one\ntwo\nthr")
    rewind(path, position)
    assert path.read_text() == "one\n"
    rewind(path, position)
    assert path.read_text() == "one\n"


@pytest.mark.parametrize("before, now", [("one\n", "ein\nzwei\n"), ("one\n", "on"), ("", "somebody's\n")])
def test_another_file_is_left_alone(tmp_path, before, now):
    path, other = tmp_path / "metrics.jsonl", tmp_path / "elsewhere" / "metrics.jsonl"
    other.parent.mkdir()
    path.write_text(before)
    other.write_text(now)
    with pytest.warns(UserWarning, match="is not the file that the saved run wrote to"):
        rewind(other, file_position(path))
    assert other.read_text() == now
    other.unlink()
    rewind(other, file_position(path))  # nothing there: nothing to cut
