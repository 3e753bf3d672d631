"""IMDBContinuation-v0 and TLDR-v0, with stand-ins of a few thousand parameters in the place of real models."""

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from agents import cli
from reward_models import Completion, RewardError, make
from tests.text_envs.helpers import BYTES
from text_envs import PromptError

REVIEWS = ["We saw it last night, and " + "it went on and on " * 5, "A short one."]
POSTS = [
    {"prompt": "My cat sleeps all day. TL;DR:", "summary": "cat sleeps"},
    {"prompt": "My cat sleeps all day. TL;DR:", "summary": "the cat is lazy"},
    {"prompt": "It rains. TL;DR:", "summary": "rain"},
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of a language model and of a classifier, and files of reviews and posts, by name."""
    folder = tmp_path_factory.mktemp("real")
    config = LlamaConfig(
        vocab_size=len(BYTES), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=600, pad_token_id=BYTES.pad_token_id, bos_token_id=BYTES.bos_token_id,
        eos_token_id=BYTES.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    paths = {"model": folder / "model", "classifier": folder / "classifier"}
    LlamaForCausalLM(config).save_pretrained(paths["model"])
    config.id2label = {0: "NEGATIVE", 1: "POSITIVE"}
    LlamaForSequenceClassification(config).save_pretrained(paths["classifier"])
    for path in paths.values():
        BYTES.save_pretrained(path)
    for name, rows in {"reviews": [{"text": text} for text in REVIEWS], "posts": POSTS}.items():
        paths[name] = folder / f"{name}.jsonl"
        paths[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: str(path) for name, path in paths.items()}


def imdb(folders, **kwargs):
    given = {"model": folders["model"], "prompts": folders["reviews"], "classifier": folders["classifier"]}
    return gym.make("text_envs/IMDBContinuation-v0", **{**given, **kwargs}).unwrapped


def tldr(folders, **kwargs):
    given = {"model": folders["model"], "prompts": folders["posts"]}
    return gym.make("text_envs/TLDR-v0", **{**given, **kwargs}).unwrapped


def test_a_review_is_continued_from_its_first_tokens(folders):
    env = imdb(folders)
    env.reset(seed=0)
    start = next(env.task.prompts[i] for i in range(2) if env.task.prompts[i].text.startswith("We"))
    assert len(start.ids) == 64 and REVIEWS[0].startswith(start.text)
    assert (env.max_new_tokens, env.default_model) == (48, folders["model"])


def test_the_reward_is_the_probability_of_the_label(folders):
    completion = Completion("A", " film", (), (), "eos", {})
    positive = imdb(folders).task.reward_model([completion])
    negative = imdb(folders, label="negative").task.reward_model([completion])
    expected = make("classifier", model=folders["classifier"], label="POSITIVE", output="probability")
    assert positive == pytest.approx(expected([completion]))
    assert np.add(positive, negative) == pytest.approx([1.0])


def test_a_label_that_the_classifier_has_not(folders):
    with pytest.raises(RewardError, match=r"label is 'joy'\. Choose one of \['NEGATIVE', 'POSITIVE'\]"):
        imdb(folders, label="joy")


def test_a_summary_is_compared_with_the_best_of_its_references(folders):
    env = tldr(folders)
    assert len(env.task.prompts) == 2
    columns = {"summary": ["cat sleeps", "the cat is lazy"]}
    said = Completion(POSTS[0]["prompt"], " cat sleeps", (), (), "eos", columns)
    assert env.task.reward_model([said]) == [1.0]
    assert [env.task.prompts[i].columns for i in range(2)] == [columns, {"summary": ["rain"]}]


def test_a_reward_model_s_folder_needs_no_summaries(folders, tmp_path):
    posts = tmp_path / "posts.jsonl"
    posts.write_text('{"prompt": "It rains. TL;DR:"}\n')
    env = tldr(folders, prompts=str(posts), reward_model=folders["classifier"])
    assert np.isfinite(env.task.reward_model([Completion("It rains.", " rain")])).all()


def test_a_post_without_a_summary_is_named(folders, tmp_path):
    posts = tmp_path / "posts.jsonl"
    posts.write_text(json.dumps(POSTS[0]) + '\n{"prompt": "It rains. TL;DR:"}\n')
    with pytest.raises(PromptError, match=r"line 2, has none of the fields summary, only prompt\. Rename"):
        tldr(folders, prompts=str(posts))


@pytest.mark.parametrize(
    "env_id, argument, what",
    [
        ("IMDBContinuation-v0", "model", "the folder of a causal LM and its tokenizer"),
        ("IMDBContinuation-v0", "prompts", "a .jsonl or .txt file of reviews"),
        ("IMDBContinuation-v0", "classifier", "the folder of a sentiment classifier"),
        ("TLDR-v0", "model", "the folder of a causal LM and its tokenizer"),
        ("TLDR-v0", "prompts", "a .jsonl file of posts and their summaries"),
    ],
)
def test_each_path_is_asked_for(folders, env_id, argument, what):
    made = imdb if env_id.startswith("IMDB") else tldr
    with pytest.raises(ValueError) as missing:
        made(folders, **{argument: None})
    assert str(missing.value) == (
        f"{argument} is not given: {env_id} comes without files of its own. Give {argument}=..., {what}."
    )
    with pytest.raises(ValueError) as wrong:
        made(folders, **{argument: "no/such"})
    assert str(wrong.value) == f"{argument}='no/such' of {env_id} does not exist. Give {what}."


@pytest.mark.parametrize("name", ["IMDBContinuation", "TLDR"])
def test_the_command_of_the_docstring_trains(folders, tmp_path, name):
    files = {
        "IMDBContinuation": {"prompts": folders["reviews"], "classifier": folders["classifier"]},
        "TLDR": {"prompts": folders["posts"], "reward_model": folders["classifier"]},
    }
    arguments = json.dumps({"model": folders["model"], "max_new_tokens": 6, **files[name]})
    command = f"ppo --env text_envs/{name}-v0 --out {tmp_path / 'run'} --total-timesteps 48 --n-episodes 8 --threads 1"
    assert (
        cli.main([*command.split(), "--batch-size", "8", "--device", "cpu", "--env-kwargs", arguments]) == 0
    )
    assert (tmp_path / "run" / "policy" / "config.json").is_file()
