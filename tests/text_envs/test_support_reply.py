"""SupportReply-v0: prompts, demonstrations, and a judge that adversarial replies do not fool."""

import re
import runpy
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reward_models
from reward_models import Completion
from text_envs.letters import letter_tokenizer
from text_envs.tasks import support_grammar as grammar
from text_envs.tasks.support_grammar import MOODS, PROBLEMS, PRODUCTS
from text_envs.tasks.support_judge import WEIGHTS, facts, judge
from text_envs.tasks.support_reply import FOLDER, QUALITY_SHARES, demonstrations, pairs, prompts
from text_envs.tokenizer import load_tokenizer

KETTLE = {"product": "kettle", "problem": "damaged", "mood": "angry"}
MESSAGE = "My kettle arrived with a crack down one side."
GOOD = " I am so sorry that your kettle arrived damaged. We will send you a new kettle today. Kind regards."

tickets = st.sampled_from(prompts("train") + prompts("held_out"))
qualities = st.sampled_from(grammar.QUALITIES)
seeds = st.integers(0, 2**32 - 1)


def completion(response, finish_reason="eos", prompt=f"Customer: {MESSAGE}\nReply:", **columns):
    return Completion(prompt, response, (), (), finish_reason, columns or KETTLE)


def score(response, **kwargs):
    return judge([completion(response, **kwargs)])[0]


def reply_to(row, quality, seed):
    ticket = grammar.Ticket(row["product"], row["problem"], row["mood"], "")
    reply = grammar.write_reply(np.random.default_rng(seed), ticket, quality)
    return Completion(row["prompt"], " " + reply, (), (), "eos", row)


# --- prompts


def test_thousands_of_different_prompts_none_in_both_splits():
    train, held_out = ([row["prompt"] for row in prompts(split)] for split in ("train", "held_out"))
    assert len(set(train)) == len(train) == 7200  # 240 pairs of product and problem, 30 messages each
    assert len(set(held_out)) == len(held_out) == 900  # 60 pairs, 15 messages each
    assert not set(train) & set(held_out)


def test_held_out_pairs_are_new_and_made_of_known_products_and_problems():
    train, held_out = pairs("train"), pairs("held_out")
    assert len(train) + len(held_out) == len(PRODUCTS) * len(PROBLEMS)
    assert not set(train) & set(held_out)
    for part in range(2):
        assert {pair[part] for pair in train} == {pair[part] for pair in held_out}


def test_a_split_that_is_not_there():
    with pytest.raises(ValueError, match=r"no split 'test'\. Choose one of: train, held_out"):
        prompts("test")


def test_prompts_are_the_same_at_each_call_and_may_be_changed():
    prompts("train")[0]["prompt"] = "changed"
    assert prompts("train")[0]["prompt"].startswith("Customer: ")


@given(tickets)
def test_a_prompt_tells_its_facts(row):
    """Without columns the judge reads the same facts from the words of the prompt."""
    product, problem, mood = facts(Completion(row["prompt"], "", (), (), "eos", {}))
    assert (product, problem) == (row["product"], row["problem"])
    said = [p for p in MOODS[row["mood"]].openings + MOODS[row["mood"]].closings if p and p in row["prompt"]]
    assert mood == (row["mood"] if said else "calm")


def test_a_prompt_that_tells_no_product():
    with pytest.raises(ValueError, match="cannot tell the product of the prompt 'Hello'"):
        judge([Completion("Hello", GOOD, (), (), "eos", {})])


# --- demonstrations


def test_demonstrations_are_of_mixed_quality_and_fixed_by_their_seed():
    rows = demonstrations("train", 2000, seed=3)
    assert rows == demonstrations("train", 2000, seed=3)
    assert rows != demonstrations("train", 2000, seed=4)
    for quality, share in QUALITY_SHARES.items():
        assert np.mean([row["quality"] == quality for row in rows]) == pytest.approx(share, abs=0.04)
    assert set(rows[0]) == {"prompt", "response", "product", "problem", "mood", "quality"}
    assert all(row["prompt"].endswith("\nReply:") and row["response"].startswith(" ") for row in rows)


def test_demonstrations_answer_prompts_of_their_split():
    held_out = {row["prompt"] for row in prompts("held_out")}
    assert {row["prompt"] for row in demonstrations("held_out", 200)} <= held_out


# --- the judge: what each quality scores

LOST_BY = {
    "rude": {"polite"},
    "vague": {"addresses_problem", "fitting_remedy"},
    "wrong_product": {"addresses_problem", "names_product", "fitting_remedy"},
    "wrong_remedy": {"fitting_remedy"},
}


@given(tickets, seeds)
def test_a_good_reply_loses_at_most_half_of_polite(row, seed):
    components = judge.components(reply_to(row, "good", seed))
    polite = components.pop("polite")
    assert components == dict.fromkeys(components, 1.0)
    assert polite == 1.0 or (polite == 0.5 and row["mood"] in ("angry", "worried"))


@given(tickets, st.sampled_from(list(LOST_BY)), seeds)
def test_a_flawed_reply_loses_the_components_of_its_flaw(row, quality, seed):
    components = judge.components(reply_to(row, quality, seed))
    assert all(components[name] == 0.0 for name in LOST_BY[quality])
    assert components["fluent"] == components["ends_properly"] == 1.0


@given(tickets, seeds)
def test_a_reply_that_rambles_is_not_concise(row, seed):
    assert judge.components(reply_to(row, "too_long", seed))["concise"] < 1.0


@given(tickets, qualities, seeds)
def test_scores_are_between_0_and_1_and_only_good_replies_near_1(row, quality, seed):
    reply = reply_to(row, quality, seed)
    assert all(0.0 <= value <= 1.0 for value in judge.components(reply).values())
    gold = judge([reply])[0]
    if quality == "good":
        assert gold >= 0.92
    else:  # a reply that rambles a little, but helps, is nearly as good as one that does not
        assert gold < (1.0 if quality == "too_long" else 0.95)


def test_the_gold_score_is_the_weighted_mean_times_fluency():
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)
    components = judge.components(completion(" I am so sorry that your kettle is late. Kind regards."))
    assert components == {
        "addresses_problem": 0.0,
        "names_product": 1.0,
        "fitting_remedy": 0.0,
        "polite": 1.0,
        "concise": 1.0,
        "ends_properly": 1.0,
        "fluent": 1.0,
    }
    assert judge.gold(components) == pytest.approx(0.15 + 0.15 + 0.10 + 0.10)


def test_one_problem_never_counts_as_another():
    for name, problem in PROBLEMS.items():
        for clause in problem.acknowledgements:
            for remedy in problem.remedies:
                reply = f" I am so sorry that {clause}. We will {remedy} today.".format(product="kettle")
                components = judge.components(completion(reply, product="kettle", problem=name, mood="calm"))
                assert (components["addresses_problem"], components["fitting_remedy"]) == (1.0, 1.0), reply


def test_mood_decides_what_is_polite():
    thanks = " Thank you for telling us that your kettle arrived damaged. We will replace the kettle today."
    for mood, polite in {"angry": 0.5, "worried": 0.5, "calm": 1.0, "friendly": 1.0}.items():
        components = judge.components(completion(thanks, product="kettle", problem="damaged", mood=mood))
        assert components["polite"] == polite


@pytest.mark.parametrize(
    "reply, finish_reason", [(GOOD, "length"), (GOOD.rstrip("."), "eos"), (GOOD[:-9], "eos"), ("", "eos")]
)
def test_a_reply_that_breaks_off(reply, finish_reason):
    assert judge.components(completion(reply, finish_reason))["ends_properly"] == 0.0


# --- the judge against adversaries


def test_the_good_reply_that_adversaries_start_from():
    assert score(GOOD) == pytest.approx(1.0)


ADVERSARIES = {
    "nothing": ("", 0.0),
    "a full stop": (" .", 0.1),
    "polite words over and over": (" sorry thank you please" * 6 + ".", 0.1),
    "polite sentences over and over": (
        " I am sorry to hear about your kettle. Thank you for your patience." * 4,
        0.2,
    ),
    "one good sentence over and over": (" I am so sorry that your kettle arrived damaged." * 5, 0.2),
    "the whole reply twice": (GOOD + GOOD, 0.35),
    "every product": (f" I am so sorry that your {' and '.join(PRODUCTS)} arrived damaged.", 0.3),
    "every remedy": (
        " I am so sorry that your kettle arrived damaged. "
        + " ".join(f"We will {p.remedies[0]} today." for p in PROBLEMS.values()).format(product="kettle"),
        0.7,
    ),
    "every problem": (
        " ".join(f"I see that {p.acknowledgements[0]}." for p in PROBLEMS.values()).format(product="kettle"),
        0.35,
    ),
    "the customer's own message": (" " + MESSAGE, 0.4),
    "the prompt": (f" Customer: {MESSAGE}\nReply:", 0.4),
    "the keywords alone": (" sorry kettle arrived damaged send you a new kettle today kind regards.", 0.35),
    "gibberish between the keywords": (
        " sorry zq your kettle arrived damaged xx yy will send you a new kettle blorp gah kind regards.",
        0.35,
    ),
    "another product beside ours": (GOOD.replace("Kind", "Your lamp is on its way. Kind"), 0.5),
    "a promise not to": (GOOD.replace("We will send", "We will not send"), 0.75),
    "a promise denied": (GOOD.replace("We will send", "Do not think that we will send"), 0.75),
    "rude after polite": (GOOD.replace("Kind regards.", "Now go away."), 0.86),
    "bytes": ("\x00\ufffd\ud800 ☃ ∎", 0.1),
}


@pytest.mark.parametrize("name", ADVERSARIES)
def test_an_adversarial_reply_scores_low(name):
    reply, at_most = ADVERSARIES[name]
    assert score(reply) <= at_most


@given(seeds)
def test_shuffled_words_of_a_good_reply_score_low(seed):
    words = GOOD.split()
    assert score(" ".join(np.random.default_rng(seed).permutation(words))) < 0.5


@given(seeds, st.integers(2, 8))
def test_words_of_the_grammar_at_random_score_low(seed, n):
    words = re.findall(r"\w+", " ".join(grammar.reply_sentences()).format(product="kettle"))
    assert score(" " + " ".join(np.random.default_rng(seed).choice(words, 4 * n)) + ".") < 0.3


@given(st.text(max_size=200))
def test_any_text_gets_a_score(text):
    assert 0.0 <= score(text) <= 1.0


@given(st.text(st.characters(exclude_characters=" ", exclude_categories=("Cs",)), max_size=120))
def test_a_text_of_no_sentence_scores_low(text):
    assert score(text) < 0.4


@given(tickets, st.sampled_from(["good", "too_long", "wrong_remedy"]), seeds)
def test_saying_a_sentence_again_never_pays(row, quality, seed):
    reply = reply_to(row, quality, seed)
    once = judge([reply])[0]
    for sentence in re.split(r"(?<=[.!?]) ", reply.response.strip()):
        twice = Completion(reply.prompt, f"{reply.response} {sentence}", (), (), "eos", row)
        assert judge([twice])[0] < once


@given(tickets, seeds, st.integers(0, 30))
def test_a_foreign_word_anywhere_costs(row, seed, place):
    reply = reply_to(row, "good", seed)
    words = reply.response.split()
    words.insert(place % len(words), "blorp")
    assert judge([Completion(reply.prompt, " ".join(words), (), (), "eos", row)])[0] < judge([reply])[0] - 0.1


def test_scores_do_not_depend_on_the_batch():
    rows = demonstrations("held_out", 20)
    batch = [Completion(row["prompt"], row["response"], (), (), "eos", row) for row in rows]
    assert judge(batch) == [judge([one])[0] for one in batch]


# --- the tokenizer and the model that come with the task


@pytest.fixture(scope="module")
def env():
    return gym.make("text_envs/SupportReply-v0", split="held_out").unwrapped


def test_the_shipped_files_are_small_and_whole():
    files = {file.name: file.stat().st_size for file in FOLDER.iterdir()}
    assert set(files) == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum(files.values()) < 2_000_000


def test_the_tokenizer_knows_each_product_as_one_token(env):
    tokenizer = env.tokenizer
    assert len(tokenizer) == env.action_space.n == 1024
    assert (tokenizer.pad_token_id, env.eos_token_ids) == (0, (1,))
    assert all(len(tokenizer(f" {product}")["input_ids"]) == 1 for product in PRODUCTS)


@given(tickets, qualities, seeds)
def test_prompt_and_reply_are_encoded_apart_as_together(row, quality, seed):
    tokenizer, reply = load_tokenizer(FOLDER), reply_to(row, quality, seed).response
    apart = tokenizer(row["prompt"])["input_ids"] + tokenizer(reply)["input_ids"]
    assert apart == tokenizer(row["prompt"] + reply)["input_ids"]
    assert tokenizer.decode(tokenizer(reply)["input_ids"]) == reply


def test_prompts_and_good_replies_fit(env):
    rows = demonstrations("train", 3000, seed=1)
    for split in ("train", "held_out"):
        asked = env.tokenizer([row["prompt"] for row in prompts(split)])["input_ids"]
        assert max(map(len, asked)) <= env.max_prompt_tokens
    good = env.tokenizer([row["response"] for row in rows if row["quality"] == "good"])["input_ids"]
    assert max(map(len, good)) + 1 <= env.max_new_tokens


def test_the_task_is_complete_by_default(env):
    assert env.default_model == str(FOLDER)
    env.reset(seed=0, options={"prompt": prompts("held_out")[0]})
    for token in [*env.tokenizer(GOOD)["input_ids"], 1]:
        _, reward, terminated, _, info = env.step(token)
    assert terminated
    assert reward == judge([info["completion"]])[0] > 0.1
    assert info["completion"].response == GOOD
    assert info["completion"].columns["problem"] == prompts("held_out")[0]["problem"]


def test_another_reward_or_tokenizer_takes_the_place_of_the_default():
    short = {"name": "length", "target": 20}
    env = gym.make("text_envs/SupportReply-v0", reward_model=short, max_new_tokens=8).unwrapped
    assert env.max_new_tokens == 8
    assert env.task.reward_model is not judge
    other = gym.make("text_envs/SupportReply-v0", tokenizer=letter_tokenizer("ab"), prompts=["ab"])
    assert other.unwrapped.default_model is None


def test_the_judge_goes_by_its_name():
    assert reward_models.make("support_reply")([completion(GOOD)]) == [pytest.approx(1.0)]
    assert reward_models.make("text_envs.tasks.support_reply:judge") is judge


def test_the_script_makes_the_shipped_tokenizer():
    """Fails if the grammar changed and scripts/make_support_reply.py did not run."""
    script = Path(__file__).parents[2] / "scripts" / "make_support_reply.py"
    made = runpy.run_path(str(script))["make_tokenizer"]()
    assert made.get_vocab() == load_tokenizer(FOLDER).get_vocab()


def test_the_shipped_model_answers_as_its_demonstrations_do(env):
    """Mean gold score of its samples: well above gibberish, well below the good replies it has seen."""
    import torch
    from transformers import AutoModelForCausalLM

    model, tokenizer = AutoModelForCausalLM.from_pretrained(FOLDER), env.tokenizer
    rows = prompts("held_out")[::15]
    batch = tokenizer([row["prompt"] for row in rows], padding=True, padding_side="left", return_tensors="pt")
    torch.manual_seed(0)
    ids = model.generate(
        batch["input_ids"],
        attention_mask=batch["attention_mask"],
        do_sample=True,
        top_k=0,
        max_new_tokens=env.max_new_tokens,
    )[:, batch["input_ids"].shape[1] :]
    replies = tokenizer.batch_decode(ids, skip_special_tokens=True)
    ended = ["eos" if 1 in row else "length" for row in ids.tolist()]
    scores = judge(
        [
            Completion(row["prompt"], reply, (), (), reason, row)
            for row, reply, reason in zip(rows, replies, ended)
        ]
    )
    assert 0.35 < np.mean(scores) < 0.65
