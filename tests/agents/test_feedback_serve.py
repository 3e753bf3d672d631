"""`rlhf feedback serve`: what it says, whom it lets in, and how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from agents.feedback_serve import organiser_token, serve
from agents.options.feedback_serve import serve_parser
from reward_models.preferences.client import HTTPClient
from reward_models.preferences.store import FeedbackStore, Sample


def options(*arguments):
    parsed = serve_parser().parse_args([str(argument) for argument in arguments])
    parsed.pop("config", None)
    return parsed


SERVE = "import sys; from tests.agents.test_feedback_serve import options; from agents.feedback_serve import serve; "
SERVE += "sys.exit(serve(options(*sys.argv[1:]), ''))"


@pytest.fixture
def start(tmp_path):
    """start(*arguments): the command as a process of its own, and the text it has printed once it serves."""
    processes = []

    def start(*arguments):
        command = [
            sys.executable,
            "-c",
            SERVE,
            "--db",
            str(tmp_path / "feedback.db"),
            "--port",
            "0",
            *arguments,
        ]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
        )
        processes.append(process)
        return process, "".join(process.stdout.readline() for _ in range(3))

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_it_serves_this_machine_until_ctrl_c(start, tmp_path):
    process, said = start()
    url = re.search(r"Rating page: +(http://127\.0\.0\.1:\d+)/", said)[1]
    assert f"{url}/organiser" in said and str(tmp_path / "feedback.db") in said
    with FeedbackStore(tmp_path / "feedback.db") as store:
        store.add_samples([Sample("p", "a"), Sample("p", "b")])
        store.request_comparisons(overlap=1)
        with HTTPClient(url, "Ann") as ann:
            ann.vote(ann.assign().id, {"choice": "left"}, key="k")
        assert len(store.comparisons()) == 1
    with urllib.request.urlopen(url) as answer:
        assert "uvicorn" not in str(answer.headers).lower()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert "every answer is in the database" in process.stderr.read()


def test_it_says_that_a_database_is_new_and_that_sigterm_ended_it(start, tmp_path):
    process, said = start()
    assert f"New database:     {tmp_path / 'feedback.db'}" in said
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    assert "every answer is in the database" in process.stderr.read()
    _, said = start()
    assert f"Database:         {tmp_path / 'feedback.db'}" in said and "New" not in said


@pytest.mark.parametrize("package", ["starlette", "fastapi", "jinja2", "python_multipart", "uvicorn"])
def test_a_package_that_is_missing_is_named_with_its_cure(package):
    hide = f"import sys; sys.modules[{package!r}] = None; import agents.feedback_serve"
    said = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True).stderr
    assert "pip install 'text-envs[feedback]'" in said.splitlines()[-1] and package in said.splitlines()[-1]


def test_in_public_it_prints_the_organisers_link(start, tmp_path):
    _, said = start("--public", "https://rate.example.org/")
    token = re.search(r"Organiser's page: https://rate\.example\.org/join/([\w-]+)\n", said)[1]
    with FeedbackStore(tmp_path / "feedback.db") as store:
        assert store.rater_of(token).organiser


def test_the_organisers_link_is_new_at_every_start(tmp_path):
    with FeedbackStore(tmp_path / "feedback.db") as store:
        store.rater("organiser")  # somebody who happens to be called so stays a rater
        first, second = organiser_token(store), organiser_token(store)
        assert store.rater_of(first) is None
        assert store.rater_of(second).organiser
        assert [(rater.name, rater.organiser) for rater in store.raters()] == [
            ("organiser", False),
            ("organiser_", True),
        ]


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (["--host", "0.0.0.0"], "lets other machines in. Say so with --public"),
        (["--host", "192.168.1.5"], "lets other machines in"),
        (["--public", "rate.example.org"], "no web address"),
        (["--public", "https://rate.example.org", "--rater", "Ann"], "personal links"),
    ],
)
def test_mistakes(tmp_path, arguments, problem):
    with pytest.raises(ValueError, match=problem):
        serve(options("--db", tmp_path / "feedback.db", *arguments), "")
    assert not (tmp_path / "feedback.db").exists()


def test_a_port_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            OSError, match=f"127.0.0.1:{port}: Address already in use. Another program has it: choose"
        ):
            serve(options("--db", tmp_path / "feedback.db", "--port", port), "")
