import subprocess
import sys

CODE = """
import sys
import gymnasium as gym
import text_envs
assert "transformers" not in sys.modules and "torch" not in sys.modules, "import"
env = gym.make("text_envs/CountLetter-v0")
env.reset(seed=0)
while not env.step(0)[2]:
    pass
assert "torch" not in sys.modules, "episode"
"""


def test_importing_imports_no_torch_and_an_episode_needs_none():
    subprocess.run([sys.executable, "-c", CODE], check=True)


def test_gymnasium_finds_the_module_of_an_id():
    code = 'import gymnasium as gym; gym.make("text_envs:text_envs/Bandit-v0")'
    subprocess.run([sys.executable, "-c", code], check=True)
