"""LoRA: the adapter and the value head learn, the model below them stays, is the reference, and is in no checkpoint."""

import sys

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from agents import TextNLPO, TextPPO, checkpoint
from agents.lora import PART, adds_nothing
from agents.lora_files import save_adapter
from agents.packing import CheckpointError
from tests.agents.helpers import letters_env, letters_policy, small_lm
from tests.agents.test_algorithms import ALL
from tests.agents.test_laws import check_law_3, roll_out
from tests.agents.test_resume import Run, StopAt, assert_same
from tests.agents.test_sft_resume import after, train, weights

peft = pytest.importorskip("peft")

LORA = dict(r=2, target_modules="all-linear")
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def base(request, tmp_path_factory) -> str:
    """The folder of a small causal LM."""
    folder = tmp_path_factory.mktemp("base") / request.param
    torch.manual_seed(0)
    small_lm(request.param).save_pretrained(folder)
    return str(folder)


def make(model, algorithm=TextPPO, lora=LORA, policy_kwargs=None, **kwargs):
    settings = dict(n_episodes=8, batch_size=4, learning_rate=1e-2, seed=0, device="cpu") | kwargs
    policy_kwargs = dict(model=model, lora=lora) | (policy_kwargs or {})
    return algorithm("CausalLMPolicy", letters_env(), policy_kwargs=policy_kwargs, **settings)


def plain(folder):
    return AutoModelForCausalLM.from_pretrained(folder)


def copied(state):
    return {name: tensor.clone() for name, tensor in state.items()}


# --- what learns ------------------------------------------------------------------------------------------------------


def test_the_laws_hold(base):
    model = make(base)
    buffer = roll_out(model)
    assert (buffer.log_probs == buffer.ref_log_probs).all()  # law 2, exactly
    model.train()  # whose self-checks, ratio 1 among them, are errors here
    assert not adds_nothing(model.policy.lm.model)
    check_law_3(model)


@pytest.mark.parametrize("algorithm", ALL)
def test_every_algorithm_trains_adapter_and_value_head_alone(base, algorithm):
    model = make(base, algorithm)
    before = copied(model.policy.state_dict())
    model.learn(100)
    changed = {n for n, tensor in model.policy.state_dict().items() if not torch.equal(tensor, before[n])}
    assert any(".lora_B." in name for name in changed)
    assert all(PART in name or name.startswith("value_head.") for name in changed)
    trained = sum(len(group["params"]) for group in model.policy.optimizer.param_groups)
    assert trained == sum(PART in name or name.startswith("value_head.") for name in before)


def test_the_reference_is_the_base_and_no_copy_of_it(base):
    model = make(base).learn(100)
    ours = model.policy.lm.model.get_input_embeddings().weight
    assert model.reference.model.get_input_embeddings().weight is ours
    expected, moved = plain(base)(IDS).logits, model.policy.lm.model(IDS).logits
    torch.testing.assert_close(model.reference.model(IDS).logits, expected)  # its GELU is fused
    assert not torch.allclose(moved, expected, atol=1e-3)


def test_a_separate_critic_is_a_second_adapter_on_the_same_base(base):
    model = make(base, policy_kwargs=dict(value_model="separate"))
    model.learn(1)
    policy, critic = model.policy.lm.model, model.policy.critic.model
    assert policy.get_input_embeddings().weight is critic.get_input_embeddings().weight
    adapters = [{n: w for n, w in m.named_parameters() if PART in n} for m in (policy, critic)]
    assert list(adapters[0]) == list(adapters[1])
    assert not any(torch.equal(adapters[0][n], adapters[1][n]) for n in adapters[0] if ".lora_B." in n)


def test_dropout_of_the_adapter_is_off(base):
    policy = letters_policy(base, lora=LORA | dict(lora_dropout=0.9, init_lora_weights=False))
    policy.set_training_mode(True)
    assert torch.equal(policy.lm.model(IDS).logits, policy.lm.model(IDS).logits)


def test_the_default_learning_rate_is_ten_times_that_of_all_weights(base):
    rates = [make(base, lora=lora, learning_rate=None).lr_schedule(1.0) for lora in (LORA, None)]
    assert rates == pytest.approx([3e-3, 3e-4])


# --- a PeftModel ------------------------------------------------------------------------------------------------------


def test_a_peft_model_is_taken_as_it_is_and_its_reference_is_the_adapter_switched_off(base):
    given = peft.get_peft_model(plain(base), peft.LoraConfig(**LORA, init_lora_weights=False))
    expected, below = given(IDS).logits, plain(base)(IDS).logits
    assert not torch.allclose(expected, below, atol=1e-3)
    model = make(given, lora=None)
    torch.testing.assert_close(model.policy.lm.model(IDS).logits, expected)
    torch.testing.assert_close(model.reference.model(IDS).logits, below)
    model.learn(1)  # without a warning that the KL does not begin at 0


def test_two_adapters_and_other_kinds_are_refused(base):
    two = peft.get_peft_model(plain(base), peft.LoraConfig(**LORA))
    two.add_adapter("other", peft.LoraConfig(**LORA))
    with pytest.raises(ValueError, match=r"adapters are default .* other .*one adapter, of LoRA"):
        make(two, lora=None)
    prompts = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(ValueError, match="one adapter, of LoRA"):
        make(peft.get_peft_model(plain(base), prompts), lora=None)


@pytest.mark.parametrize(
    "lora, reason",
    [
        (dict(bias="all"), "bias would change the base"),
        (dict(modules_to_save=["lm_head"]), "modules_to_save would change"),
        (dict(init_lora_weights="pissa"), "init_lora_weights would change"),
        (
            dict(megatron_config={}, megatron_core="antigravity"),
            "megatron_config, megatron_core would change",
        ),
        (dict(rank=4), "unexpected keyword argument 'rank'"),
        (dict(target_modules=["nowhere"]), "nowhere"),
    ],
)
def test_what_cannot_be_an_adapter_is_refused(base, lora, reason):
    with pytest.raises(ValueError, match=rf"(?s)No adapter can be made of lora=.*{reason}"):
        make(base, lora=lora)


def test_a_second_adapter_is_refused(base):
    given = peft.get_peft_model(plain(base), peft.LoraConfig(**LORA))
    with pytest.raises(ValueError, match="has an adapter already"):
        make(given)


def test_without_peft_the_extra_is_named(base, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"pip install 'text-envs\[lora\]'"):
        make(base)


# --- files ------------------------------------------------------------------------------------------------------------


def test_save_pretrained_writes_a_plain_model_and_leaves_the_policy_as_it_was(base, tmp_path):
    model = make(base).learn(60)
    before = copied(model.policy.state_dict())
    model.save_pretrained(tmp_path)
    assert_same(dict(model.policy.state_dict()), before)
    written = plain(tmp_path)
    assert set(written.state_dict()) == set(plain(base).state_dict())
    torch.testing.assert_close(written(IDS).logits, model.policy.lm.model(IDS).logits, atol=1e-4, rtol=1e-4)


def test_the_adapter_alone_is_peft_s(base, tmp_path):
    model = make(base).learn(60)
    save_adapter(model.policy.lm.model, tmp_path)
    loaded = peft.PeftModel.from_pretrained(plain(base), tmp_path)
    torch.testing.assert_close(loaded(IDS).logits, model.policy.lm.model(IDS).logits)


@pytest.mark.parametrize(
    "algorithm, value_model", [(TextPPO, "shared"), (TextPPO, "separate"), (TextNLPO, "shared")]
)
def test_a_checkpoint_holds_no_weight_of_the_base_and_finds_it_again(base, tmp_path, algorithm, value_model):
    model = make(base, algorithm, policy_kwargs=dict(value_model=value_model, temperature=0.9)).learn(60)
    model.save(tmp_path / "model.zip")
    members = checkpoint.read(tmp_path / "model.zip")
    held = {name for file, tensors in members.items() if file.endswith(".safetensors") for name in tensors}
    assert all(PART in name for name in held if name.startswith(("lm.", "critic.", "model.", "transformer.")))
    assert "reference.safetensors" not in members
    loaded = algorithm.load(tmp_path / "model.zip", env=letters_env(), device="cpu")
    assert_same(dict(loaded.policy.state_dict()), dict(model.policy.state_dict()))
    assert loaded.policy.lm.temperature == 0.9
    assert torch.equal(loaded.reference.model(IDS).logits, model.reference.model(IDS).logits)
    assert_same(loaded.policy.optimizer.state_dict(), model.policy.optimizer.state_dict())


def test_a_base_that_had_no_folder_is_given_anew(tmp_path):
    base = small_lm()
    base.save_pretrained(tmp_path / "base")
    model = make(base).learn(60)
    model.save(tmp_path / "model.zip")
    with pytest.raises(
        CheckpointError, match=r"had no folder\. Give the base model: load\(path, policy_kwargs"
    ):
        TextPPO.load(tmp_path / "model.zip")
    loaded = TextPPO.load(
        tmp_path / "model.zip", device="cpu", policy_kwargs=dict(model=str(tmp_path / "base"))
    )
    assert torch.equal(loaded.policy.lm.model(IDS).logits, model.policy.lm.model(IDS).logits)


def test_another_base_is_refused(base, tmp_path):
    model = make(base).learn(60)
    model.save(tmp_path / "model.zip")
    other = plain(base)
    with torch.no_grad():
        other.get_input_embeddings().weight[0, 0] += 1e-3
    wanted = r"not the base model that the adapter was trained on \(that was .*\).*model\.zip\. Give the base model"
    with pytest.raises(CheckpointError, match=wanted):
        TextPPO.load(tmp_path / "model.zip", policy_kwargs=dict(model=other))
    with pytest.raises(CheckpointError, match=wanted):
        make(other, lora=None).set_parameters(tmp_path / "model.zip")
    with pytest.raises(CheckpointError, match=r"No causal LM could be loaded.*Give the base model"):
        TextPPO.load(tmp_path / "model.zip", policy_kwargs=dict(model=str(tmp_path / "gone")))


@pytest.mark.parametrize("value_model, point", [("shared", "token"), ("separate", "loss")])
def test_training_goes_on_to_the_same_bits(base, tmp_path, value_model, point):
    kwargs = dict(policy_kwargs=dict(model=base, lora=LORA, value_model=value_model))
    whole = Run(tmp_path / "whole", **kwargs).learn().result()
    run = Run(tmp_path / "run", **kwargs)
    stop = StopAt(point, 5)
    run.learn(stop)
    assert stop.reached
    assert_same(run.reload().learn().result(), whole)


def test_numbers_of_parameters_by_hand():
    """One Llama layer of width 32 (values 16 wide, inner 48), rank 2: 2 x (in + out) of each of its seven matrices."""
    policy = letters_policy(small_lm("llama", num_hidden_layers=1), lora=LORA)
    expected = 2 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48))
    counted = sum(np.prod(w.shape) for n, w in policy.named_parameters() if PART in n and w.requires_grad)
    assert counted == expected


def test_a_reference_with_an_adapter_is_saved_merged(base, tmp_path):
    given = peft.get_peft_model(plain(base), peft.LoraConfig(**LORA, init_lora_weights=False))
    expected = given(IDS).logits
    model = make(base, reference_model=given)
    model.save(tmp_path / "model.zip")
    loaded = TextPPO.load(tmp_path / "model.zip", device="cpu")
    torch.testing.assert_close(loaded.reference.model(IDS).logits, expected, atol=1e-4, rtol=1e-4)


# --- fine-tuning ------------------------------------------------------------------------------------------------------


def test_fine_tuning_merges_what_the_adapter_learned(base, tmp_path):
    tuned = sft(base, output_dir=tmp_path, lora=LORA, learning_rate=3e-2)
    written, start = plain(tmp_path).state_dict(), plain(base).state_dict()
    changed = {name for name in start if not torch.equal(written[name], start[name])}
    assert set(written) == set(start) and changed
    assert all("attn" in name or "mlp" in name for name in changed)  # the linear layers alone
    assert tuned.train_loss < sft(base, max_steps=1).train_loss - 0.5
    assert_same(dict(tuned.model.state_dict()), dict(plain(tmp_path).state_dict()))


def test_fine_tuning_of_an_adapter_goes_on_to_the_same_bits(base, tmp_path):
    whole, path = sft(base, lora=LORA), tmp_path / "last.zip"
    assert sft(base, lora=LORA, checkpoint=path, should_stop=after(5)).steps == 5
    held = checkpoint.read(path)["model.safetensors"]
    assert held and all(PART in name for name in held)
    assert_same(weights(sft(base, lora=LORA, checkpoint=path, resume=True)), weights(whole))
    other = plain(base)
    with torch.no_grad():
        other.get_input_embeddings().weight[0, 0] += 1e-3
    with pytest.raises(CheckpointError, match="another training: lora differ"):
        sft(other, lora=LORA, checkpoint=path, resume=True)


def sft(model, **changes):
    return train(**(dict(model=model) | changes))
