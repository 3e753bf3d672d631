"""What saves memory changes no result: logits in chunks, layers computed anew, token budgets, a reference in bfloat16."""

import copy
import warnings

import numpy as np
import psutil
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from agents import TextNLPO, TextPPO, memory
from agents.checks import SelfCheckWarning
from agents.episodes import split_by_length
from agents.lm import LanguageModel, SequenceBatch
from agents.losses import entropy
from agents.memory import give_back_freed, in_chunks
from tests.agents.helpers import LETTERS, NO_SPECIAL, letters_env, letters_policy, small_lm

N_TOKENS, HIDDEN = 23, 32


@pytest.fixture
def chunks_of_five(monkeypatch):
    """Log-probabilities are computed for 5 tokens at a time."""
    monkeypatch.setattr(memory, "LOGITS_AT_ONCE", 0)
    monkeypatch.setattr(memory, "LOGITS_PER_CHUNK", 5 * len(LETTERS) + 1)


def make_ppo(model=None, algorithm=TextPPO, policy_kwargs=None, **kwargs):
    torch.manual_seed(2)
    policy_kwargs = dict(model=model or small_lm(), dtype="float32") | (policy_kwargs or {})
    settings = dict(n_episodes=12, batch_size=12, n_envs=5, learning_rate=1e-3, seed=0, device="cpu")
    return algorithm("CausalLMPolicy", letters_env(), policy_kwargs=policy_kwargs, **(settings | kwargs))


def roll_out(model):
    _, callback = model._setup_learn(1_000_000)
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_episodes)
    return model.rollout_buffer


def loss_and_gradients(model, buffer, **limits):
    """Of the whole rollout as one minibatch."""
    model.policy.optimizer.zero_grad()
    loss = 0.0
    for batch in next(buffer.minibatches(len(buffer.episodes), **limits)):
        part, _ = model.loss(batch)
        part.backward()
        loss += float(part.detach())
    return loss, [p.grad.clone() for p in model.policy.parameters() if p.grad is not None]


def assert_same(one, other, atol=1e-6):
    assert one[0] == pytest.approx(other[0], abs=atol)
    assert len(one[1]) == len(other[1]) > 0
    for a, b in zip(one[1], other[1]):
        torch.testing.assert_close(a, b, atol=atol, rtol=1e-5)


# --- logits in chunks ----------------------------------------------------------------------------------------------


def leaves(model, seed=0):
    """Hidden states and chosen tokens of a language model, and which tokens were legal."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(N_TOKENS, HIDDEN, generator=generator).requires_grad_()
    actions = torch.randint(model.vocab_size, (N_TOKENS,), generator=generator)
    legal = torch.rand(N_TOKENS, model.vocab_size, generator=generator) < 0.6
    legal[torch.arange(N_TOKENS), actions] = True
    return hidden, actions, legal


def computed(model, masked=False, backward=True):
    """log_probs, entropies, and the gradients of a weighted sum of both: of the hidden states and the output layer."""
    hidden, actions, legal = leaves(model)
    log_probs, nats = model.log_probs(hidden, actions, legal if masked else None, entropies=True)
    weights = torch.linspace(-1, 1, N_TOKENS)
    output = model.model.get_output_embeddings().weight
    grads = torch.autograd.grad((weights * log_probs + weights**2 * nats).mean(), [hidden, output])
    return [log_probs.detach(), nats.detach(), *grads]


@pytest.mark.parametrize(
    "settings",
    [
        dict(),
        dict(masked=True),
        dict(temperature=0.7),
        dict(cut=3),
        dict(softcap=2.0),
        dict(dtype="bfloat16"),
    ],
    ids=str,
)
def test_chunks_change_neither_log_probs_nor_entropies_nor_gradients(settings, chunks_of_five, monkeypatch):
    torch.manual_seed(0)
    model = LanguageModel(
        small_lm("gpt2", vocab_size=len(LETTERS) + settings.get("cut", 0)),
        len(LETTERS),
        settings.get("temperature", 1.0),
        settings.get("dtype", "float32"),
    )
    model.softcap = settings.get("softcap")
    chunked = computed(model, settings.get("masked", False))
    monkeypatch.setattr(memory, "LOGITS_AT_ONCE", 2**20)
    whole = computed(model, settings.get("masked", False))
    tolerance = 1e-6 if model.dtype == torch.float32 else 2e-2
    for one, other in zip(chunked, whole, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


def test_a_masked_log_prob_is_that_of_the_legal_tokens(chunks_of_five):
    """By hand: softmax over the legal tokens alone."""
    model = LanguageModel(small_lm(), len(LETTERS), dtype="float32")
    hidden, actions, legal = leaves(model)
    log_probs = model.log_probs(hidden, actions, legal)[0].detach()
    logits = (hidden @ model.model.get_output_embeddings().weight.T).detach()
    for row in range(N_TOKENS):
        weights = logits[row].exp() * legal[row]
        assert float(log_probs[row]) == pytest.approx(
            float((weights[actions[row]] / weights.sum()).log()), abs=1e-5
        )


def test_no_more_than_a_chunk_of_logits_lives_at_a_time(chunks_of_five):
    """Neither in forward, which keeps none, nor in backward, which computes each chunk once more."""
    model, sizes, kept = LanguageModel(small_lm(), len(LETTERS), dtype="float32"), [], []
    model.model.get_output_embeddings().register_forward_hook(lambda *_: sizes.append(len(_[2])))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        hidden, actions, _ = leaves(model)
        log_probs, _ = model.log_probs(hidden, actions)
    assert sizes == [5, 5, 5, 5, 3]
    assert (5, HIDDEN) in kept
    assert not [shape for shape in kept if shape[-1:] == (len(LETTERS),)]
    log_probs.sum().backward()
    assert sizes == [5, 5, 5, 5, 3, 3, 5, 5, 5, 5]  # the last chunk first


def test_few_logits_are_computed_once():
    model, sizes = LanguageModel(small_lm(), len(LETTERS), dtype="float32"), []
    hidden, actions, _ = leaves(model)
    model.model.get_output_embeddings().register_forward_hook(lambda *_: sizes.append(len(_[2])))
    log_probs, nats = model.log_probs(hidden, actions, entropies=True)
    (log_probs.sum() + nats.sum()).backward()
    assert sizes == [N_TOKENS]
    logits = model.logits(hidden)
    torch.testing.assert_close(
        log_probs, -F.cross_entropy(logits, actions, reduction="none"), atol=2e-6, rtol=0
    )
    torch.testing.assert_close(nats, entropy(logits), atol=2e-6, rtol=0)


def test_chunks_of_what_is_not_there_are_not_there():
    """None in, None out: tokens without masks, log-probabilities without entropies."""
    doubled, nothing = in_chunks(lambda x, y: (2 * x, y), 2, torch.arange(5.0), None)
    assert doubled.tolist() == [0, 2, 4, 6, 8]
    assert nothing is None


@pytest.mark.parametrize("algorithm", [TextPPO, TextNLPO])
def test_an_update_in_chunks_is_the_update(algorithm, monkeypatch):
    """The log-probabilities of rollout, reference and loss, the entropy bonus, and NLPO's masks."""
    found = []
    for at_once in (2**26, 0):
        monkeypatch.setattr(memory, "LOGITS_AT_ONCE", at_once)
        monkeypatch.setattr(memory, "LOGITS_PER_CHUNK", 5 * len(LETTERS))
        model = make_ppo(algorithm=algorithm, ent_coef=0.01)
        buffer = roll_out(model)
        assert np.abs(buffer.log_probs - buffer.ref_log_probs).max() == 0  # law 2
        found.append((buffer.entropies.mean(), loss_and_gradients(model, buffer)))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    assert_same(found[0][1], found[1][1])


def test_entropies_are_computed_only_where_they_are_asked_for():
    policy = letters_policy()
    ids = torch.arange(10)[None]
    batch = SequenceBatch(
        ids, torch.zeros(3, dtype=torch.long), torch.tensor([2, 3, 4]), torch.tensor([3, 4, 5])
    )
    _, log_probs, nothing = policy.evaluate_sequences(batch)
    _, same, nats = policy.evaluate_sequences(batch, entropies=True)
    assert nothing is None
    assert nats.shape == (3,)
    assert torch.equal(log_probs, same)


# --- token budgets -------------------------------------------------------------------------------------------------


def test_groups_hold_as_many_tokens_as_the_budget_allows():
    """Padded to the longest: 3 x 10 = 30, 2 x 7 = 14; the one of 40 stands alone."""
    groups = split_by_length(np.array([7, 10, 40, 9, 10, 7]), max_tokens=30)
    assert [group.tolist() for group in groups] == [[2], [1, 4, 3], [0, 5]]


def test_limit_and_budget_hold_together():
    groups = split_by_length(np.array([5, 5, 5, 5, 5]), limit=2, max_tokens=15)
    assert [len(group) for group in groups] == [2, 2, 1]


@pytest.mark.parametrize("max_tokens", [1, 20, 40, None])
def test_law_9_a_token_budget_changes_nothing(max_tokens):
    model = make_ppo(ent_coef=0.01)
    buffer = roll_out(model)
    sizes = [
        batch.sequences.ids.numel()
        for batch in next(buffer.minibatches(12, max_tokens=max_tokens))
        if len(batch.sequences.ids) > 1
    ]
    assert max_tokens is None or max(sizes, default=0) <= max_tokens
    whole = loss_and_gradients(model, buffer, micro_batch_size=12)
    assert_same(loss_and_gradients(model, buffer, max_tokens=max_tokens), whole)


def test_a_budget_holds_in_rollout_and_update_and_changes_no_weights():
    weights = []
    for max_tokens in (None, 30):
        model, sizes = make_ppo(max_tokens_per_batch=max_tokens), []
        encode = model.policy.lm.token_hidden
        model.policy.lm.token_hidden = lambda batch, encode=encode, sizes=sizes: (
            sizes.append(batch.ids) or encode(batch)
        )
        model.learn(1)
        weights.append(torch.cat([p.detach().flatten() for p in model.policy.parameters()]))
        if max_tokens is not None:
            assert len(sizes) > 5
            assert all(ids.numel() <= max_tokens or len(ids) == 1 for ids in sizes)
    torch.testing.assert_close(*weights, atol=2e-5, rtol=0)


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ValueError, match="max_tokens_per_batch is 0: in TextPPO"):
        make_ppo(max_tokens_per_batch=0)


# --- layers computed anew ------------------------------------------------------------------------------------------

ARCHITECTURES = {
    "gpt2": dict(resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1),
    "llama": dict(attention_dropout=0.1),
    "opt": dict(  # its layers read their own training mode to drop out
        dropout=0.1, attention_dropout=0.1, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, word_embed_proj_dim=32,
    ),
}  # fmt: skip


def model_with_dropout(architecture):
    torch.manual_seed(1)
    if architecture != "opt":
        return small_lm(architecture, **ARCHITECTURES[architecture])
    config = AutoConfig.for_model("opt", vocab_size=len(LETTERS), **NO_SPECIAL, **ARCHITECTURES["opt"])
    config.pad_token_id = 1
    return AutoModelForCausalLM.from_config(config)


def first_block(trunk):
    """The module whose passes are counted: the first layer's feed-forward part."""
    return next(m for name, m in trunk.named_modules() if name.endswith(("0.mlp", "layers.0.fc1")))


def count_passes(module):
    """Passes begun: computing anew ends as soon as backward has what it needs."""
    passes = []
    module.register_forward_pre_hook(lambda *_: passes.append(1))
    return passes


@pytest.mark.parametrize("value_model", ["shared", "separate"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradient_checkpointing_runs_each_layer_twice_and_gives_the_same_gradients(architecture, value_model):
    found, counts = [], []
    for gradient_checkpointing in (False, True):
        kwargs = dict(value_model=value_model, gradient_checkpointing=gradient_checkpointing)
        model = make_ppo(model_with_dropout(architecture), policy_kwargs=kwargs)
        buffer = roll_out(model)
        model.policy.set_training_mode(True)
        with torch.no_grad():
            model.policy.value_head.weight.fill_(0.1)
        trunks = [model.policy.lm] if value_model == "shared" else [model.policy.lm, model.policy.critic]
        passes = [count_passes(first_block(trunk)) for trunk in trunks]
        found.append(loss_and_gradients(model, buffer, micro_batch_size=12))
        counts += [[len(p) for p in passes]]
        passes[0].clear()
        model._evaluate(buffer)
        assert len(passes[0]) == 1, "without gradients nothing is computed anew"
    n_micro_batches = counts[0][0]
    assert set(counts[0]) == {n_micro_batches}
    assert set(counts[1]) == {2 * n_micro_batches}
    assert_same(found[1], found[0])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_law_13_dropout_stays_off_where_layers_are_computed_anew(architecture):
    model = make_ppo(model_with_dropout(architecture), policy_kwargs=dict(gradient_checkpointing=True))
    buffer = roll_out(model)
    model.policy.set_training_mode(True)
    first, second = (loss_and_gradients(model, buffer, order=range(12)) for _ in range(2))
    assert first[0] == second[0]
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1]))


def test_a_copied_layer_computes_with_its_own_weights():
    """The reference and a separate critic are copies of the policy."""
    policy = letters_policy(gradient_checkpointing=True)
    twin = copy.deepcopy(policy.lm)
    with torch.no_grad():
        for parameter in policy.lm.trunk.layers.parameters():
            parameter.zero_()
    ids = torch.arange(6)[None]
    assert not torch.allclose(twin.hidden(ids), policy.lm.hidden(ids))


@pytest.mark.parametrize("value_model", ["shared", "separate"])
def test_gradient_checkpointing_computes_an_adapter_s_layers_anew(value_model):
    pytest.importorskip("peft")
    found = []
    for gradient_checkpointing in (False, True):
        kwargs = dict(lora=dict(r=2), value_model=value_model, gradient_checkpointing=gradient_checkpointing)
        model = make_ppo(policy_kwargs=kwargs)
        buffer = roll_out(model)
        with torch.no_grad():
            model.policy.value_head.weight.fill_(0.1)
        passes = count_passes(first_block(model.policy.lm))
        found.append((*loss_and_gradients(model, buffer, micro_batch_size=12), len(passes)))
    assert found[1][2] == 2 * found[0][2]
    assert_same(found[1], found[0])


def test_gradient_checkpointing_survives_save_and_load(tmp_path):
    make_ppo(policy_kwargs=dict(gradient_checkpointing=True), max_tokens_per_batch=30).save(
        tmp_path / "model"
    )
    loaded = TextPPO.load(tmp_path / "model", env=letters_env(), device="cpu")
    passes = count_passes(first_block(loaded.policy.lm))
    buffer = roll_out(loaded)
    passes.clear()
    loss_and_gradients(loaded, buffer, micro_batch_size=12)
    n_micro_batches = len(next(buffer.minibatches(12, 12)))
    assert len(passes) == 2 * n_micro_batches
    assert loaded.max_tokens_per_batch == 30


def test_a_model_without_transformers_layers_is_refused():
    model = small_lm()
    model.model.layers = torch.nn.ModuleList()
    with pytest.raises(ValueError, match="cannot be computed anew: in CausalLMPolicy"):
        letters_policy(model, gradient_checkpointing=True)


# --- the reference -------------------------------------------------------------------------------------------------


def n_bytes(module):
    return sum(parameter.nbytes for parameter in module.parameters())


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_reference_in_bfloat16_takes_half_the_bytes_and_is_near(architecture):
    model = make_ppo(small_lm(architecture), reference_kwargs=dict(dtype="bfloat16"), n_episodes=24)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SelfCheckWarning)  # the self-check knows that it rounds
        buffer = roll_out(model)
    assert n_bytes(model.reference) * 2 == n_bytes(model.policy.lm)
    differences = np.abs(buffer.log_probs - buffer.ref_log_probs)
    assert 0 < differences.max() < 0.2
    assert differences.mean() < 0.05
    assert all(p.dtype == torch.float32 for p in model.policy.parameters())


def test_the_frequencies_of_rotary_positions_are_not_rounded():
    reference = LanguageModel(small_lm("llama"), len(LETTERS)).hold_in_bfloat16()
    assert reference.model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_the_self_check_still_finds_another_model_behind_a_bfloat16_reference():
    model = make_ppo(reference_kwargs=dict(dtype="bfloat16"))
    with torch.no_grad():
        for parameter in model.reference.parameters():
            parameter.mul_(1.5)
    with pytest.warns(SelfCheckWarning, match="differ from its reference's"):
        roll_out(model)


def test_a_bfloat16_reference_survives_save_and_load(tmp_path):
    model = make_ppo(reference_kwargs=dict(dtype="bfloat16", device="cpu"))
    with torch.no_grad():
        for parameter in model.policy.lm.parameters():
            parameter.add_(0.1)  # it has learned; the reference is what it was
    model.save(tmp_path / "model")
    loaded = TextPPO.load(tmp_path / "model", device="cpu")
    assert loaded.reference_kwargs == dict(dtype="bfloat16", device="cpu")
    for one, other in zip(model.reference.parameters(), loaded.reference.parameters(), strict=True):
        assert other.dtype == torch.bfloat16
        assert torch.equal(one, other)


def test_another_reference_model_may_be_held_in_bfloat16_too():
    other = small_lm()
    model = make_ppo(reference_model=other, reference_kwargs=dict(dtype="bfloat16"))
    assert {p.dtype for p in model.reference.parameters()} == {torch.bfloat16}
    roll_out(model)


def test_a_batch_moves_whole():
    """To the "meta" device, which knows shapes alone."""
    ids, where = torch.zeros(1, 4, dtype=torch.long), torch.arange(3)
    legal = torch.ones(3, len(LETTERS), dtype=torch.bool)
    for batch in (SequenceBatch(ids, where, where, where), SequenceBatch(ids, where, where, where, legal)):
        moved = batch.to(torch.device("meta"))
        assert {t.device.type for t in vars(moved).values() if t is not None} == {"meta"}
        assert (moved.legal is None) == (batch.legal is None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_a_reference_on_another_device_says_the_same():
    model = make_ppo(device="cuda", reference_kwargs=dict(device="cpu"))
    buffer = roll_out(model)
    assert model.reference.device.type == "cpu"
    np.testing.assert_allclose(buffer.log_probs, buffer.ref_log_probs, atol=1e-4)


def test_a_reference_below_an_adapter_is_not_rounded():
    """It is the policy's own base model."""
    pytest.importorskip("peft")
    with pytest.raises(ValueError, match="below the policy's own adapter: in TextPPO"):
        make_ppo(policy_kwargs=dict(lora=dict(r=2)), reference_kwargs=dict(dtype="bfloat16"))


@pytest.mark.parametrize("kwargs", [dict(dtype="int8"), dict(quantised=True)], ids=str)
def test_unknown_reference_kwargs_are_refused(kwargs):
    with pytest.raises(ValueError, match="reference_kwargs is"):
        make_ppo(reference_kwargs=kwargs)


def test_freed_memory_is_given_back_where_the_c_library_can(monkeypatch):
    def resident() -> int:
        return psutil.Process().memory_info().rss

    give_back_freed()
    before = resident()
    blocks = [torch.ones(2**14) for _ in range(1000)]  # 64 MiB, in blocks that malloc keeps
    held = resident() - before
    del blocks[:-1]  # the last one keeps the heap from shrinking by itself
    give_back_freed()
    if memory._malloc_trim() is not None:
        assert held > 60 * 2**20
        assert resident() - before < held / 4
    monkeypatch.setattr(memory, "_malloc_trim", lambda: None)  # another C library: nothing happens
    give_back_freed()
