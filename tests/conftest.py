"""Shared by all tests: offline, one thread, and where the optional real data lies."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import hypothesis
import pytest
import torch

# The models here are too small to share among threads; on a busy machine two threads are many times slower than one.
torch.set_num_threads(1)

# The same examples in every run, without a clock; `--hypothesis-profile default` looks for new ones.
hypothesis.settings.load_profile("ci")

# Real data and a real pretrained model, if they are at hand: tests that want them skip where they are not.
DATA = Path(os.environ.get("TEXT_ENVS_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="also run the tests that take minutes")


# These files take longest. They come first, so that processes which share the suite end together.
LONGEST = [
    "test_processes", "test_rlhf", "test_loop_processes", "test_features", "test_process_stages", "test_pages_xss",
    "test_demo", "test_pages_browser", "test_cli", "test_resume_signals", "test_resume_kills", "test_rlhf_killed",
    "test_doctor",
]  # fmt: skip


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
    if not config.getoption("--run-slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="takes minutes; --run-slow runs it"))


@pytest.fixture
def data() -> Path:
    if not DATA.is_dir():
        pytest.skip(f"no real data at {DATA}; set TEXT_ENVS_DATA to its folder")
    return DATA


@pytest.fixture
def stories(data) -> Path:
    """The folder of stories260K, a real Llama of 260,032 parameters."""
    folder = data / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip(f"no model at {folder}")
    return folder
