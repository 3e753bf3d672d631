"""Where the rating page of a loop is shown."""

import webbrowser

import pytest

from agents.comparing import open_browser


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
