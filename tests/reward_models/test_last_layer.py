"""The last layer in two parts: the same numbers as whole, and less work."""

import copy
import pickle
import threading
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from reward_models import last_layer
from reward_models.last_layer import attention_window, hidden_at

SMALL = dict(
    vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64
)
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": dict(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "llama": SMALL | dict(intermediate_size=64),
    "qwen2": SMALL | dict(intermediate_size=64, num_key_value_heads=2),
    "qwen3": SMALL | dict(intermediate_size=64, num_key_value_heads=2, head_dim=8),
    "mistral": SMALL | dict(intermediate_size=64, num_key_value_heads=2, sliding_window=None),
    "phi": SMALL | dict(intermediate_size=64),
    "gpt_neox": SMALL | dict(intermediate_size=64),
    "opt": SMALL | dict(ffn_dim=64, word_embed_proj_dim=32),
}
TOKENS = dict(bos_token_id=None, eos_token_id=None, pad_token_id=None)


@pytest.fixture(autouse=True, scope="module")
def worthwhile():
    """These models are so small that it would not be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(last_layer, "WORTHWHILE_PRODUCTS", 0)
        yield


def make(family: str, attention: str = "sdpa", **changes: Any) -> PreTrainedModel:
    """A random model of a family; wide weights, so that attention is far from uniform."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **FAMILIES[family] | TOKENS | changes)
    model = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation=attention
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.2)
    return model


def whole(model: PreTrainedModel, ids: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return model.base_model(input_ids=ids, use_cache=False).last_hidden_state[rows, columns]


def parted(model: PreTrainedModel, ids: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return hidden_at(model.base_model, model.get_input_embeddings()(ids), rows, columns)


def ragged() -> tuple[Tensor, Tensor, Tensor]:
    """Three sequences of 20 columns; read are columns 9 to 13 of the first, 15 to 19 of the second, 4 of the third."""
    ids = torch.randint(50, (3, 20), generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([0] * 5 + [1] * 5 + [2])
    return ids, rows, torch.tensor([9, 10, 11, 12, 13, 15, 16, 17, 18, 19, 4])


def rows_of_last_mlp(model: PreTrainedModel, compute: Any) -> int:
    """How many rows the last layer's output was computed for, in its largest linear layer's calls."""
    layer = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)][-1]
    last = [m for m in layer.modules() if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D"][-1]
    seen = []
    hook = last.register_forward_hook(lambda module, args, output: seen.append(output[..., 0].numel()))
    compute()
    hook.remove()
    return sum(seen)


def gradients(model: PreTrainedModel, hidden: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_and_gradients_are_those_of_the_whole_layer(family, attention):
    model, (ids, rows, columns) = make(family, attention), ragged()

    expected, found = whole(model, ids, rows, columns), parted(model, ids, rows, columns)

    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    expected_gradients, found_gradients = gradients(model, expected), gradients(model, found)
    assert expected_gradients.keys() == found_gradients.keys()
    for name, gradient in expected_gradients.items():
        scale = max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(
            found_gradients[name] / scale, gradient / scale, atol=2e-5, rtol=1e-4, msg=name
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_layer_computes_the_rows_that_are_read(family):
    model, (ids, rows, columns) = make(family), ragged()
    parted(model, ids, rows, columns)  # the first call tries whether it can be done

    # 3 sequences of at most 5 rows, not of 20
    assert rows_of_last_mlp(model, lambda: parted(model, ids, rows, columns)) == 15
    assert rows_of_last_mlp(model, lambda: whole(model, ids, rows, columns)) == 60


def test_where_little_is_saved_the_layer_is_called_once(monkeypatch):
    model, (ids, rows, columns) = make("llama"), ragged()
    monkeypatch.setattr(
        last_layer, "WORTHWHILE_PRODUCTS", 3 * 15 * 32**2
    )  # 15 of 20 rows of 3 sequences, 32 wide
    assert rows_of_last_mlp(model, lambda: parted(model, ids, rows, columns)) < 120  # and twice to try it
    monkeypatch.setattr(last_layer, "WORTHWHILE_PRODUCTS", 3 * 15 * 32**2 + 1)
    assert rows_of_last_mlp(model, lambda: parted(model, ids, rows, columns)) == 60


def test_where_the_mask_would_be_large_the_layer_is_called_once(monkeypatch):
    model, (ids, rows, columns) = make("llama"), ragged()
    parted(model, ids, rows, columns)
    monkeypatch.setattr(last_layer, "LARGEST_MASK", 3 * 5 * 20)
    assert rows_of_last_mlp(model, lambda: parted(model, ids, rows, columns)) == 15
    monkeypatch.setattr(last_layer, "LARGEST_MASK", 3 * 5 * 20 - 1)
    assert rows_of_last_mlp(model, lambda: parted(model, ids, rows, columns)) == 60


def test_where_most_rows_are_read_the_layer_is_called_once():
    model, (ids, *_) = make("llama"), ragged()
    rows, columns = (
        t.reshape(-1) for t in torch.meshgrid(torch.arange(3), torch.arange(4, 20), indexing="ij")
    )
    parted(model, ids, rows, columns)

    assert rows_of_last_mlp(model, lambda: parted(model, ids, rows, columns)) == 60  # 16 of 20 columns


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_places_can_be_read(data):
    model = MODEL
    n, length = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 24))
    places = st.tuples(st.integers(0, n - 1), st.integers(0, length - 1))
    chosen = data.draw(st.lists(places, min_size=1, max_size=2 * length, unique=True))
    rows, columns = torch.tensor(chosen).T
    ids = torch.randint(50, (n, length), generator=torch.Generator().manual_seed(length))

    found = parted(model, ids, rows, columns)

    torch.testing.assert_close(found, whole(model, ids, rows, columns), atol=2e-5, rtol=1e-4)


MODEL = make("llama")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_in_bfloat16_they_are_the_whole_layers_but_for_its_rounding(attention):
    model, (ids, rows, columns) = make("llama", attention), ragged()
    exact = whole(model, ids, rows, columns)
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = whole(model, ids, rows, columns), parted(model, ids, rows, columns)
        assert rows_of_last_mlp(model, lambda: parted(model, ids, rows, columns)) == 15

    rounding = float((expected - exact).abs().max())
    assert 1e-3 < rounding < 0.2
    assert float((found - expected).abs().max()) < 2 * rounding


def test_what_stands_to_the_right_of_a_place_changes_nothing():
    model, (ids, rows, columns) = make("gpt2"), ragged()
    changed = ids.clone()
    changed[0, 14:], changed[2, 5:] = 7, 7

    assert torch.equal(parted(model, ids, rows, columns), parted(model, changed, rows, columns))


def test_a_sliding_window_that_does_not_hold_the_sequences_is_left_to_the_model():
    model, (ids, rows, columns) = make("mistral", sliding_window=8), ragged()

    assert attention_window(model.config) == 8
    torch.testing.assert_close(parted(model, ids, rows, columns), whole(model, ids, rows, columns))
    assert rows_of_last_mlp(model, lambda: parted(model, ids, rows, columns)) == 60


def test_an_architecture_that_cannot_be_parted_is_called_whole():
    config = AutoConfig.for_model("bloom", vocab_size=50, hidden_size=32, n_layer=2, n_head=4, **TOKENS)
    torch.manual_seed(0)
    model, (ids, rows, columns) = (
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval(),
        ragged(),
    )

    found = parted(
        model, ids, rows, columns
    )  # its attention is biased by distance, of all keys and no others

    torch.testing.assert_close(found, whole(model, ids, rows, columns), atol=2e-5, rtol=1e-4)
    assert rows_of_last_mlp(model, lambda: parted(model, ids, rows, columns)) == 60


def test_transformers_own_gradient_checkpointing_is_left_alone():
    model, (ids, rows, columns) = make("llama"), ragged()
    expected = gradients(model, whole(model, ids, rows, columns))
    parted(model, ids, rows, columns)
    model.gradient_checkpointing_enable()
    model.train()

    found = gradients(model, parted(model, ids, rows, columns))

    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=2e-5, rtol=1e-4, msg=name)


def test_another_thread_may_use_the_model_meanwhile():
    model, (ids, rows, columns) = make("llama"), ragged()
    expected = whole(model, ids, *torch.where(torch.ones(3, 20, dtype=torch.bool))).view(3, 20, -1)
    parted(model, ids, rows, columns)
    found: list[bool] = []

    def read_whole():
        for _ in range(30):
            hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            found.append(torch.allclose(hidden, expected, atol=2e-5))

    def read_parts():
        for _ in range(30):
            hidden = parted(model, ids, rows, columns)
            found.append(torch.allclose(hidden, expected[rows, columns], atol=2e-5))

    threads = [threading.Thread(target=target) for target in (read_whole, read_parts, read_parts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 90


def test_copies_are_parted_by_themselves():
    model, (ids, rows, columns) = make("llama"), ragged()
    expected = parted(model, ids, rows, columns)

    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(parted(twin, ids, rows, columns), expected)
        assert rows_of_last_mlp(twin, lambda: parted(twin, ids, rows, columns)) == 15  # noqa: B023
