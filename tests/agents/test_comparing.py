"""People who compare: at the terminal, and on the rating page."""

import io
import signal
import socket
import threading
import time
import webbrowser

import pytest
from rich.console import Console

from agents.callbacks import stop_on_signals
from agents.comparing import Comparing, open_browser, rating_page
from agents.settings import FeedbackSettings
from agents.stages import Stopped
from reward_models import Completion
from reward_models.preferences import Origin
from reward_models.preferences.store import FeedbackStore


def test_the_first_signal_ends_the_waiting_for_a_line(tmp_path, monkeypatch):
    def types(prompt):
        signal.raise_signal(signal.SIGTERM)
        return "1"  # too late: it is not taken

    monkeypatch.setattr("builtins.input", types)
    shown, settings = io.StringIO(), FeedbackSettings(rater="terminal", votes=1)
    answers = [[Completion(prompt, "a"), Completion(prompt, "b")] for prompt in "xy"]
    with FeedbackStore(tmp_path / "feedback.db") as store, stop_on_signals() as stopped:
        comparing = Comparing(
            store, settings, None, 0, None, lambda: bool(stopped), Console(file=shown, width=90)
        )
        with pytest.raises(Stopped):
            comparing.collect(comparing.request(answers, Origin("model", {}, 0)))
        assert store.progress().votes == 0 and stopped.number == signal.SIGTERM
    assert "0 of 1 votes" in shown.getvalue()  # two items are there, and one vote is asked for


def test_the_rating_page_does_not_wait_for_a_browser_that_is_in_the_middle_of_something(tmp_path, capfd):
    with FeedbackStore(tmp_path / "feedback.db") as store:
        with rating_page(store, "127.0.0.1", 0) as address:
            port = int(address.rstrip("/").rpartition(":")[2])
            browser = socket.create_connection(("127.0.0.1", port))
            head = [
                "POST /login HTTP/1.1",
                f"Host: 127.0.0.1:{port}",
                f"Origin: {address.rstrip('/')}",
                "Content-Length: 9",
            ]
            browser.sendall("\r\n".join([*head, "", "name="]).encode())  # four characters more are never sent
            time.sleep(0.5)  # until it is waited for
        assert "Traceback" not in capfd.readouterr().err
        assert "rating page" not in {thread.name for thread in threading.enumerate()}
        browser.close()


@pytest.mark.parametrize(
    "platform, desktop, opened",
    [("linux", {"DISPLAY": ":0"}, 1), ("linux", {}, 0), ("darwin", {}, 1), ("win32", {}, 1)],
)
def test_a_browser_opens_where_there_is_a_desktop_and_nowhere_else(monkeypatch, platform, desktop, opened):
    asked = []
    monkeypatch.setattr(webbrowser, "open", asked.append)
    monkeypatch.setattr("sys.platform", platform)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in desktop.items():
        monkeypatch.setenv(name, value)
    open_browser("http://127.0.0.1:8000/")
    assert asked == ["http://127.0.0.1:8000/"] * opened
