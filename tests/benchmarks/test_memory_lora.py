"""LoRA's share of full fine-tuning's memory, from numbers that can be checked by eye."""

from benchmarks.memory.lora import make_env, with_shares


def test_shares_are_of_the_full_model_with_the_same_critic():
    peaks = {
        "full, frozen copy": 1000,
        "LoRA r=16": 400,
        "full, separate critic": 2000,
        "LoRA r=16, separate critic": 500,
    }
    rows = with_shares([{"case": name, "imports": 200, "peak": peak} for name, peak in peaks.items()])
    assert [row["share"] for row in rows] == [1, 0.4, 1, 0.25]
    assert [row["share_above_imports"] for row in rows] == [1, 200 / 800, 1, 300 / 1800]


def test_episodes_have_distilgpt2_s_vocabulary_and_one_length():
    env = make_env()
    assert env.action_space.n == 50_257
    env.reset(seed=0)
    steps, ended = 0, False
    while not ended:
        _, _, ended, _, _ = env.step(50_256)
        steps += 1
    assert steps == 24
