"""The critic that starts from a learned reward model: its first values are that model's scores of the prefixes."""

import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from agents import TextGRPO, TextPPO, checkpoint
from agents.lora import PART, adapter_config, put_adapter
from agents.packing import CheckpointError
from reward_models import Completion, make, score
from reward_models.calibration import calibrate
from reward_models.learning import train
from reward_models.preferences import Comparison
from tests.agents.helpers import LETTERS, letters_env, letters_policy, small_lm
from tests.agents.test_laws import first_batch, roll_out
from tests.agents.test_resume import Run, StopAt, assert_same
from text_envs.letters import letter_tokenizer

TEXTS = ["abc", "defgh", "aaaa", "lkj", "b", "ghijkl"]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def reward_folder(request, tmp_path_factory) -> str:
    """A calibrated reward model of the letters, of another width and depth than the policy."""
    folder = tmp_path_factory.mktemp("reward") / request.param
    torch.manual_seed(0)
    width = dict(n_embd=16, n_head=2) if request.param == "gpt2" else dict(hidden_size=16)
    pairs = [Comparison("c", (a, b), "left") for a in ("aa", "ab", "ba") for b in ("cd", "dd", "dc")]
    train(
        small_lm(request.param, **width), pairs, folder, tokenizer=letter_tokenizer(LETTERS), epochs=2, learning_rate=1e-2,
        device="cpu", progress=None,
    )  # fmt: skip
    calibrate(folder, [Completion("", text) for text in TEXTS], device="cpu")
    return str(folder)


def make_ppo(reward_model=None, env=None, **kwargs):
    policy_kwargs = dict(model=small_lm(), value_model="from_reward_model")
    if reward_model is not None:
        policy_kwargs["reward_model"] = reward_model
    settings = dict(n_episodes=8, batch_size=4, learning_rate=1e-3, seed=0, device="cpu") | kwargs
    return TextPPO("CausalLMPolicy", env or letters_env(), policy_kwargs=policy_kwargs, **settings)


def values_of(policy, texts):
    """V of the texts as states."""
    tokenizer, n = letter_tokenizer(LETTERS), policy.max_length
    ids, mask = np.zeros((len(texts), n), dtype=np.int64), np.zeros((len(texts), n), dtype=np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = tokenizer(text)["input_ids"], 1
    obs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    return policy.predict_values(obs)[:, 0].detach().numpy()


def test_the_first_values_are_the_calibrated_scores_of_the_prefixes(reward_folder):
    policy = letters_policy(value_model="from_reward_model", reward_model=reward_folder)
    expected = score(make(reward_folder, device="cpu"), [Completion("", text) for text in TEXTS])
    assert expected.std() == pytest.approx(1, abs=1e-3)  # it is calibrated
    np.testing.assert_allclose(values_of(policy, TEXTS), expected, atol=1e-4)


def test_the_reward_of_the_environment_is_taken_where_none_is_given(reward_folder):
    model = make_ppo(env=letters_env(reward_model=make(reward_folder, device="cpu")))
    buffer = roll_out(model)
    last = buffer.offsets[1:] - 1
    # The value before the last token is the score of all but that token.
    texts = ["".join(LETTERS[token] for token in episode.ids[:-1]) for episode in buffer.episodes]
    expected = score(model.env.get_attr("task")[0].reward_model, [Completion("", text) for text in texts])
    np.testing.assert_allclose(buffer.values[last], expected, atol=1e-4)


def test_the_laws_hold_and_the_whole_critic_learns(reward_folder):
    model = make_ppo(reward_folder)
    buffer = roll_out(model)
    assert (buffer.log_probs == buffer.ref_log_probs).all()
    _, stats = model.loss(first_batch(model)[0])
    assert stats["clip_fraction"] == 0 and abs(stats["approx_kl"]) < 1e-6
    before = {name: tensor.clone() for name, tensor in model.policy.critic.state_dict().items()}
    model.train()
    changed = {
        n for n, tensor in model.policy.critic.state_dict().items() if not torch.equal(tensor, before[n])
    }
    assert any("embed" in n or "wte" in n for n in changed) and any(
        "layers.0" in n or "h.0" in n for n in changed
    )


@pytest.mark.parametrize("point, n", [("token", 5), ("loss", 5)])
def test_training_goes_on_to_the_same_bits_without_the_folder(reward_folder, tmp_path, point, n):
    kwargs = dict(policy_kwargs=dict(value_model="from_reward_model", reward_model=reward_folder))
    whole = Run(tmp_path / "whole", **kwargs).learn().result()
    run = Run(tmp_path / "run", **kwargs).learn(StopAt(point, n))
    run.model.policy_kwargs["reward_model"] = "gone"
    assert_same(run.reload().learn().result(), whole)


def test_what_is_no_learned_reward_model_is_refused(reward_folder, tmp_path):
    small_lm().save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"is no learned reward model: .*from_reward_model.*reward_models\.learning\.train"
    ):
        make_ppo(str(tmp_path))
    with pytest.raises(ValueError, match=r"environment's reward is a function, no learned reward model"):
        make_ppo()
    with pytest.raises(ValueError, match=r"knows .* tokens, the policy 20"):
        letters_policy(
            small_lm(vocab_size=20),
            vocab_size=20,
            value_model="from_reward_model",
            reward_model=reward_folder,
        )
    with pytest.raises(ValueError, match="It has no critic"):
        TextGRPO("CausalLMPolicy", letters_env(), policy_kwargs=dict(value_model="from_reward_model"))


def test_a_reward_model_with_another_tokenizer_is_refused(reward_folder, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(reward_folder)
    model.save_pretrained(tmp_path)
    letter_tokenizer("lkjihgfedcba").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"reads other tokens than the environment, '[a-l]' for one"):
        make_ppo(str(tmp_path))


def test_positions_of_the_reward_model_must_suffice(reward_folder):
    with pytest.raises(ValueError, match="the reward model's positions end at 64"):
        letters_policy(
            small_lm(max_position_embeddings=128),
            length=100,
            value_model="from_reward_model",
            reward_model=reward_folder,
        )


# --- below a LoRA adapter ---------------------------------------------------------------------------------------------


@pytest.fixture
def adapted(reward_folder, tmp_path):
    """The arguments of a policy with an adapter, whose base has a folder, and a critic from the reward model."""
    pytest.importorskip("peft")
    small_lm().save_pretrained(tmp_path / "base")
    lora = dict(r=2, target_modules="all-linear")
    return dict(
        model=str(tmp_path / "base"),
        lora=lora,
        value_model="from_reward_model",
        reward_model=reward_folder,
    )


def make_adapted(adapted):
    return TextPPO(
        "CausalLMPolicy", letters_env(), n_episodes=8, batch_size=4, learning_rate=1e-2, seed=0, device="cpu",
        policy_kwargs=adapted,
    )  # fmt: skip


def test_with_lora_the_critic_is_an_adapter_on_the_reward_model(adapted, reward_folder):
    model = make_adapted(adapted)
    expected = score(make(reward_folder, device="cpu"), [Completion("", text) for text in TEXTS])
    np.testing.assert_allclose(values_of(model.policy, TEXTS), expected, atol=1e-4)
    before = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
    model.learn(100)
    changed = {n for n, tensor in model.policy.state_dict().items() if not torch.equal(tensor, before[n])}
    assert all(PART in name or name.startswith("value_head.") for name in changed)
    for part in ("lm.", "critic.", "value_head."):
        assert any(name.startswith(part) for name in changed)


def test_with_lora_the_settings_of_a_given_adapter_are_the_critic_s_too(adapted):
    model = small_lm("llama")
    put_adapter(model, dict(r=3, target_modules="all-linear"))
    del adapted["lora"]
    critic = make_adapted(adapted | {"model": model}).policy.critic.model
    assert adapter_config(critic).r == 3


def test_with_lora_a_checkpoint_finds_the_reward_model_again(adapted, reward_folder, tmp_path):
    model = make_adapted(adapted).learn(60)
    model.save(tmp_path / "model.zip")
    held = checkpoint.read(tmp_path / "model.zip")["policy.safetensors"]
    assert all(PART in name or name.startswith("value_head.") for name in held)
    loaded = TextPPO.load(tmp_path / "model.zip", env=letters_env(), device="cpu")
    assert_same(dict(loaded.policy.state_dict()), dict(model.policy.state_dict()))
    np.testing.assert_array_equal(values_of(loaded.policy, TEXTS), values_of(model.policy, TEXTS))


def test_with_lora_training_goes_on_to_the_same_bits(adapted, tmp_path):
    whole = Run(tmp_path / "whole", policy_kwargs=adapted).learn().result()
    run = Run(tmp_path / "run", policy_kwargs=adapted).learn(StopAt("loss", 5))
    assert_same(run.reload().learn().result(), whole)


def test_with_lora_a_reward_model_that_is_gone_or_another_is_refused(adapted, reward_folder, tmp_path):
    path = tmp_path / "model.zip"
    shutil.copytree(reward_folder, tmp_path / "moved")
    model = make_adapted(adapted | {"reward_model": str(tmp_path / "moved")}).learn(60)
    model.save(path)
    (tmp_path / "moved").rename(tmp_path / "elsewhere")
    with pytest.raises(
        CheckpointError, match=r"the reward model below it is not to be had: .*reward_model=\.\.\."
    ):
        TextPPO.load(path, device="cpu")
    given = dict(reward_model=str(tmp_path / "elsewhere"))
    loaded = TextPPO.load(path, device="cpu", policy_kwargs=given)
    assert_same(dict(loaded.policy.state_dict()), dict(model.policy.state_dict()))
    other = AutoModelForSequenceClassification.from_pretrained(reward_folder)
    with torch.no_grad():
        other.get_input_embeddings().weight[0, 0] += 1e-3
    with pytest.raises(
        CheckpointError, match=r"not the base model .*moved below the critic's\).*Give the reward model"
    ):
        TextPPO.load(path, device="cpu", policy_kwargs=dict(reward_model=other))


def test_with_lora_a_reward_model_that_had_no_folder_is_given_anew(adapted, reward_folder, tmp_path):
    given = AutoModelForSequenceClassification.from_pretrained(reward_folder)
    given.name_or_path = given.config.name_or_path = ""
    model = make_adapted(adapted | {"reward_model": given}).learn(60)
    model.save(tmp_path / "model.zip")
    with pytest.raises(
        CheckpointError, match=r"reward model below it is not to be had: it had no folder\. Give the"
    ):
        TextPPO.load(tmp_path / "model.zip", device="cpu")
    kwargs = dict(reward_model=reward_folder)
    loaded = TextPPO.load(tmp_path / "model.zip", device="cpu", policy_kwargs=kwargs)
    assert_same(dict(loaded.policy.state_dict()), dict(model.policy.state_dict()))
