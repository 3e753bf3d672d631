import numpy as np

from tests.text_envs.helpers import letter_env, letter_vector_env, play


def test_ansi_shows_prompt_and_response():
    env = letter_env(["ab"], render_mode="ansi")
    play(env, [2, 3])
    assert env.render() == "ab ▏cd"


def test_human_prints_as_it_goes(capsys):
    play(letter_env(["ab"], render_mode="human", max_new_tokens=2), [2, 3])
    assert capsys.readouterr().out.split("\r")[-1] == "ab ▏cd\n+2\n"


def test_an_image_shows_the_text():
    env = letter_env(["ab"], render_mode="rgb_array", max_new_tokens=300)
    env.reset(seed=0)
    before = env.render()
    assert before.shape == (400, 640, 3) and before.dtype == np.uint8
    play(env, [2] * 200)
    after = env.render()
    assert (after < 128).sum() > 2 * (before < 128).sum() > 0


def test_a_vector_env_renders_each_row():
    env = letter_vector_env(2, ["ab"], render_mode="ansi")
    env.reset(seed=0)
    env.step(np.array([0, 1]))
    assert env.render() == ("ab ▏a", "ab ▏b")
