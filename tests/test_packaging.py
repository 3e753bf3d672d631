"""The wheel: every module, the types marker, the package data, and the command are in it, and it works on its own."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("text_envs", "agents", "reward_models")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that no build folder is left in the checkout."""
    pytest.importorskip("setuptools", "77", reason="the build backend of pyproject.toml")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=source, check=True, capture_output=True)
    (path,) = out.glob("*.whl")
    return path


def test_everything_in_the_packages_is_in_the_wheel(wheel):
    files = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {f"{package}/py.typed" for package in PACKAGES} <= files
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert inside == files


def test_the_command_and_the_licence_are_declared(wheel):
    with zipfile.ZipFile(wheel) as archive:
        texts = {Path(name).name: name for name in archive.namelist() if ".dist-info/" in name}
        assert "rlhf = agents.cli:main" in archive.read(texts["entry_points.txt"]).decode()
        assert "Name: text-envs\n" in archive.read(texts["METADATA"]).decode()
        assert "LICENSE" in texts


def test_the_installed_wheel_works_without_the_checkout(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import gymnasium as gym, text_envs, agents, reward_models\n"
        "assert all('site' in module.__file__ for module in (text_envs, agents, reward_models))\n"
        "env = gym.make('text_envs/SupportReply-v0')\n"
        "env.reset(seed=0); env.step(0)\n"
        "agents.TextPPO('CausalLMPolicy', env, n_episodes=2)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    command = [sys.executable, "-m", "agents.cli", "--help"]
    help_text = subprocess.run(
        command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert "sft,ppo,generate,demo" in help_text.stdout
