"""How a language model computes: dtype, attention, and casts that are kept."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from agents import lm as module
from agents.lm import LanguageModel, compute_dtype, kept_casts
from agents.loading import load_causal_lm
from agents.sampling import choose
from tests.agents.helpers import letters_policy


def small_gpt2(**settings):
    config = AutoConfig.for_model(
        "gpt2", vocab_size=11, n_positions=16, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return AutoModelForCausalLM.from_config(config, **settings)


@pytest.mark.parametrize(
    "hidden_size, in_hardware, dtype",
    [(192, True, torch.bfloat16), (191, True, torch.float32), (192, False, torch.float32)],
)
def test_auto_is_bfloat16_where_a_cpu_is_fast_at_it_and_the_model_is_wide_enough(
    monkeypatch, hidden_size, in_hardware, dtype
):
    monkeypatch.setattr(module, "has_fast_bfloat16", lambda device_type: in_hardware)
    compute_dtype.cache_clear()
    assert compute_dtype("auto", "cpu", hidden_size) == dtype
    compute_dtype.cache_clear()


def test_attention_is_written_out_in_bfloat16_on_a_cpu_and_left_alone_in_float32():
    assert (
        LanguageModel(small_gpt2(), 11, dtype="bfloat16").model.config._attn_implementation == "written_out"
    )
    assert LanguageModel(small_gpt2(), 11, dtype="float32").model.config._attn_implementation == "sdpa"


def test_a_user_s_own_choice_of_attention_is_kept():
    chosen = small_gpt2(attn_implementation="eager")
    assert LanguageModel(chosen, 11, dtype="float32").model.config._attn_implementation == "eager"


def test_kept_casts_end_with_the_block_so_that_new_weights_count():
    language_model = LanguageModel(small_gpt2(), 11, dtype="bfloat16")
    hidden, weight = torch.ones(1, 8), language_model.model.get_output_embeddings().weight
    with torch.no_grad(), kept_casts():
        for _ in range(2):
            with language_model.autocast():
                before = language_model.logits(hidden)
    with torch.no_grad():
        weight.add_(1.0)
        with language_model.autocast():
            after = language_model.logits(hidden)
    assert torch.allclose(after - before, torch.full((1, 11), 8.0), atol=0.1)


@pytest.mark.parametrize("deterministic", [False, True])
def test_no_token_is_chosen_by_nan(deterministic):
    logits = torch.tensor([[0.0, 1.0], [0.0, float("nan")]])
    with pytest.raises(ValueError, match="lower learning_rate"):
        choose(logits, deterministic)
    assert choose(logits[:1].repeat(2, 1), deterministic)[0].shape == (2,)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_is_positive(temperature):
    with pytest.raises(ValueError, match=r"temperature is .* must be positive"):
        letters_policy(temperature=temperature)


def test_a_model_s_own_code_is_not_run_unasked(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(
        '{"model_type": "own", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Evil"}}'
    )
    (tmp_path / "evil.py").write_text("raise SystemExit")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether the code may run"))
    with pytest.raises(ValueError, match=r"No causal LM could be loaded.*custom code"):
        load_causal_lm(tmp_path, 11, 16)


def test_a_saved_policy_generates_at_the_temperature_it_was_trained_at(tmp_path):
    letters_policy(temperature=0.5).save_pretrained(tmp_path)
    generation = GenerationConfig.from_pretrained(tmp_path)
    assert generation.do_sample and generation.temperature == 0.5


def test_without_a_model_a_small_one_begins_nearly_uniform():
    torch.manual_seed(0)
    model = load_causal_lm(None, 5, 100)
    probabilities = model(torch.tensor([[0, 1, 2, 3, 4, 0]])).logits.softmax(-1)
    assert (probabilities - 0.2).abs().max() < 0.1
    assert model.config.vocab_size == 5 and model.config.n_positions == 100
