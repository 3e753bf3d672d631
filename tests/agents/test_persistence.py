"""Saving and loading a model: what comes back, and what is refused."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3.common.utils import LinearSchedule
from transformers import AutoModelForCausalLM, AutoTokenizer

from agents import checkpoint
from agents.packing import CheckpointError
from agents.ppo import TextPPO
from agents.saved_settings import without_code
from tests.agents.helpers import letters_env, small_lm


@pytest.fixture(scope="module")
def trained() -> TextPPO:
    torch.manual_seed(0)
    model = TextPPO(
        "CausalLMPolicy", letters_env(), n_episodes=8, batch_size=4, learning_rate=LinearSchedule(1e-2, 1e-3, 0.5),
        clip_range=0.3, kl_coef=0.1, kl_target=3.0, seed=0, device="cpu",
        policy_kwargs=dict(model=small_lm(), temperature=0.9),
    )  # fmt: skip
    return model.learn(100)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_a_loaded_model_is_the_saved_one(trained, tmp_path):
    trained.save(tmp_path / "model")
    assert (tmp_path / "model.zip").exists(), "the suffix is added, as Stable-Baselines3 does"
    loaded = TextPPO.load(tmp_path / "model", env=letters_env(), device="cpu")
    assert same(trained.policy.state_dict(), loaded.policy.state_dict())
    assert same(trained.reference.state_dict(), loaded.reference.state_dict())
    assert not same(loaded.reference.state_dict(), loaded.policy.lm.state_dict()), "training moved the policy"
    assert loaded.num_timesteps == trained.num_timesteps and loaded._n_updates == trained._n_updates
    assert loaded.lr_schedule(0.75) == pytest.approx(5.5e-3) and loaded.clip_range(1.0) == 0.3
    assert loaded.kl_controller.coef == trained.kl_controller.coef and loaded.kl_controller.target == 3.0
    assert loaded.policy.lm.temperature == 0.9
    ours = trained.policy.optimizer.state_dict()["state"]
    theirs = loaded.policy.optimizer.state_dict()["state"]
    assert ours and all(torch.equal(ours[i]["exp_avg"], theirs[i]["exp_avg"]) for i in ours)
    loaded.learn(50, reset_num_timesteps=False)
    assert loaded.num_timesteps > trained.num_timesteps


def test_it_predicts_without_an_environment(trained, tmp_path):
    trained.save(tmp_path / "model.zip")
    loaded = TextPPO.load(tmp_path / "model.zip", device="cpu")
    obs, _ = letters_env().reset(seed=1)
    assert loaded.predict(obs, deterministic=True)[0] == trained.predict(obs, deterministic=True)[0]


def test_settings_can_be_replaced_at_load(trained, tmp_path):
    trained.save(tmp_path / "model.zip")
    loaded = TextPPO.load(
        tmp_path / "model.zip", device="cpu", n_epochs=9, custom_objects={"learning_rate": 0.5}
    )
    assert loaded.n_epochs == 9 and loaded.lr_schedule(1.0) == 0.5


def test_another_environment_is_refused(trained, tmp_path):
    trained.save(tmp_path / "model.zip")
    with pytest.raises(ValueError, match="spaces do not match"):
        TextPPO.load(tmp_path / "model.zip", env=letters_env(max_new_tokens=3))


def test_a_learning_rate_function_is_saved_as_its_present_value_and_said(tmp_path):
    model = TextPPO(
        "CausalLMPolicy", "text_envs/Bandit-v0", learning_rate=lambda progress: 0.125 * progress, device="cpu"
    )
    with pytest.warns(UserWarning, match=r"learning_rate is a function.*load\(path, learning_rate"):
        model.save(tmp_path / "model.zip")
    assert TextPPO.load(tmp_path / "model.zip").learning_rate == 0.125


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("kind", ["pickle", "pickle in a zip", "truncated", "changed weights", "empty"])
def test_a_doctored_file_is_refused_and_nothing_in_it_runs(trained, tmp_path, kind):
    path, trap = tmp_path / "model.zip", tmp_path / "trap"
    trained.save(path)
    content = bytearray(path.read_bytes())
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb(trap)))
    elif kind == "pickle in a zip":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("data", pickle.dumps(Bomb(trap)))
    elif kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "changed weights":
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    else:
        path.write_bytes(b"")
    for read in (TextPPO.load, trained.set_parameters):
        with pytest.raises(CheckpointError, match=r"model\.zip"):
            read(path)
    assert not trap.exists()


def doctored(model: TextPPO, path: Path, **changes) -> Path:
    """A checkpoint of the model whose settings are changed, with a manifest that fits."""
    model.save(path)
    members = checkpoint.read(path)
    for name, value in changes.items():
        part, _, key = name.partition("__")
        members["settings.json"][part] = members["settings.json"][part] | {key: value} if key else value
    checkpoint.write(path, members)
    return path


def test_a_configuration_that_names_code_is_refused_unasked(trained, tmp_path, monkeypatch):
    code, trap = tmp_path / "code", tmp_path / "trap"
    code.mkdir()
    (code / "evil.py").write_text(f"open({str(trap)!r}, 'w')\nclass Evil: pass\n")
    (code / "config.json").write_text('{"model_type": "clip_text_model"}')
    config = {"model_type": "clip_text_model", "auto_map": {"AutoModelForCausalLM": f"{code}--evil.Evil"}}
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether the code may run"))
    with pytest.raises(CheckpointError, match=r"clip.*model\.zip"):
        TextPPO.load(doctored(trained, tmp_path / "model.zip", model__config=config), device="cpu")
    assert not trap.exists()


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_kernels_of_the_hub_are_not_fetched(key):
    assert without_code(
        {"n_layer": 2, "text_config": {key: "hub/kernel", "n_head": 1}, key: "hub/kernel"}
    ) == {
        "n_layer": 2,
        "text_config": {"n_head": 1},
    }


WRONG = {
    "no settings": dict(attributes=None),
    "schedules": dict(schedules=None),
    "learning rate": dict(schedules__learning_rate=-1),
    "KL coefficient": dict(kl_controller__coef="much"),
    "seed": dict(attributes__seed=-1),
    "environments": dict(n_envs=-1),
    "spaces": dict(spaces__vocab_size=-1),
    "model type": dict(model__config={"model_type": "nonesuch"}),
    "model size": dict(model__config={"model_type": "llama", "hidden_size": "x"}),
    "negative size": dict(model__config={"model_type": "llama", "vocab_size": -1}),
    "policy": dict(policy_kwargs={"colour": "red"}),
}


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
def test_wrong_settings_are_refused_in_a_sentence(trained, tmp_path, changes):
    path = doctored(trained, tmp_path / "model.zip", **changes)
    with pytest.raises(CheckpointError, match=r"model\.zip.*take another one") as caught:
        TextPPO.load(path, env=letters_env(), device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["settings.json", "policy.safetensors"])
def test_a_checkpoint_without_a_member_is_refused(trained, tmp_path, name):
    trained.save(tmp_path / "model.zip")
    members = checkpoint.read(tmp_path / "model.zip")
    del members[name]
    checkpoint.write(tmp_path / "model.zip", members)
    for read in (TextPPO.load, trained.set_parameters):
        with pytest.raises(CheckpointError, match=r"model\.zip"):
            read(tmp_path / "model.zip")


def test_a_file_sets_only_what_is_saved(trained, tmp_path):
    path = doctored(
        trained,
        tmp_path / "model.zip",
        attributes__tensorboard_log=str(tmp_path / "elsewhere"),
        attributes__policy_class="x",
    )
    loaded = TextPPO.load(path, env=letters_env(), device="cpu").learn(1)
    assert loaded.tensorboard_log is None and not (tmp_path / "elsewhere").exists()
    assert loaded.policy_class is trained.policy_class


def test_parameters_can_be_taken_out_and_put_back(trained):
    before = {name: tensor.clone() for name, tensor in trained.policy.state_dict().items()}
    parameters = trained.get_parameters()
    assert set(parameters) == {"policy", "policy.optimizer"}
    parameters["policy"] = {name: tensor + 1 for name, tensor in before.items()}
    trained.set_parameters(parameters)
    assert torch.equal(trained.policy.value_head.bias, before["value_head.bias"] + 1)
    trained.set_parameters({"policy": before, "policy.optimizer": parameters["policy.optimizer"]})


def test_set_env_may_change_the_number_of_environments(trained):
    trained.set_env(letters_env().unwrapped.vectorize(3))
    assert trained.n_envs == 3
    trained.learn(20, reset_num_timesteps=False)
    trained.set_env(letters_env())
    trained.learn(20, reset_num_timesteps=False)
    assert len(trained.rollout_buffer.episodes) == 8


def test_save_pretrained_gives_a_folder_that_plain_transformers_loads(trained, tmp_path):
    trained.save_pretrained(tmp_path / "policy")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    assert same(model.state_dict(), trained.policy.lm.model.state_dict())
    assert tokenizer("bad")["input_ids"] == [1, 0, 3]
    obs, _ = letters_env().reset(seed=1)
    n = int(np.sum(obs["attention_mask"]))
    logits = model(input_ids=torch.from_numpy(obs["input_ids"][None, :n])).logits[0, -1]
    assert trained.predict(obs, deterministic=True)[0] == logits.argmax()
    again = TextPPO(
        "CausalLMPolicy", letters_env(), policy_kwargs=dict(model=str(tmp_path / "policy")), device="cpu"
    )
    assert torch.equal(
        again.policy.lm.model.get_output_embeddings().weight, model.get_output_embeddings().weight
    )
