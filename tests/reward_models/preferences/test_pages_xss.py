"""A hundred hostile texts as prompts, answers, drafts, names, reasons and guidelines: none runs in a real Chromium."""

from contextlib import contextmanager

import pytest

from reward_models.preferences.store import FeedbackStore, Sample
from tests.reward_models.preferences.payloads import PAYLOADS
from tests.reward_models.preferences.serving import served

# Answers everything of one kind as a rater would, looking at each page: a hostile text has no element of its own.
ANSWER_ALL = """async ([kind, key]) => {
  const pause = () => new Promise((resolve) => setTimeout(resolve, 4));
  const task = () => document.querySelector(".task");
  const strangers = [];
  let pages = 0;
  document.querySelector("dialog[open]")?.close();
  while (!task()) await pause();
  while (task().dataset.kind === kind) {
    pages += 1;
    const now = task();
    const ours = "h1, h2, p, section, article, div, ol, li, dl, dt, dd, label, input, textarea, button, kbd, span";
    strangers.push(...document.querySelectorAll(`.text *:not(span.glyph[title^="U+"]), main *:not(${ours})`));
    const written = now.querySelector("#response");
    if (written) {
      written.value = now.querySelector(".text").textContent;
      now.querySelector("[data-action=submit]").click();
    } else {
      if (now.querySelector("#reason")) now.querySelector("#reason").value = now.querySelector(".text").textContent;
      document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
      if (kind === "ranking") document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    }
    while (task() === now) await pause();
  }
  return [pages, strangers.map((element) => element.outerHTML)];
}"""


@pytest.fixture
def store(quick_path):
    with FeedbackStore(quick_path / "feedback.db") as store:
        yield store


@contextmanager
def harmless(chromium):
    """A page on which nothing foreign may happen: no dialog, no word in the console, no request to another host."""
    context = chromium.new_context(accept_downloads=False)
    page = context.new_page()
    trouble = []
    page.on("dialog", lambda dialog: (trouble.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: trouble.extend([request.url] * ("//127.0.0.1:" not in request.url)))
    context.on("page", lambda other: trouble.append(f"opened {other.url}"))
    yield page
    assert page.evaluate("window.pwned") is None
    assert trouble == []
    context.close()


def test_none_runs_for_raters(store, chromium):
    store.guidelines = "\n".join(PAYLOADS)
    columns = {"reference": PAYLOADS[10], PAYLOADS[0]: PAYLOADS[1]}
    for i, payload in enumerate(PAYLOADS):
        store.add_samples(Sample(payload, answer, columns=columns) for answer in (payload, PAYLOADS[i - 1]))
    store.request_comparisons(overlap=1)
    store.request_ratings(n=len(PAYLOADS))
    store.request_demonstrations()
    tens = [PAYLOADS[i : i + 10] for i in range(0, 100, 10)]
    ranked = store.add_samples(Sample(ten[0] + ten[1], answer) for ten in tens for answer in ten)
    store.request_rankings(k=10, samples=ranked)
    with served(store, rater=PAYLOADS[10], columns=list(columns)) as url, harmless(chromium) as page:
        for kind, key, pages in [
            ("comparison", "1", 100),
            ("rating", "3", 100),
            ("demonstration", "", 100),
            ("ranking", "Enter", 10),
        ]:
            page.goto(url)
            assert page.evaluate(ANSWER_ALL, [kind, key]) == [pages, []], kind
        page.keyboard.press("g")
        assert page.get_by_role("dialog").inner_text().count("alert(1)") >= 80
        assert page.evaluate("window.pwned") is None
    reasons = {vote.reason for vote in store.votes() if vote.kind == "comparison"}
    assert len(reasons) == 99  # two differ by a line break alone, which a field of one line leaves out


def test_none_runs_for_the_organiser_nor_in_links_nor_in_errors(store, chromium):
    store.guidelines = "\n".join(PAYLOADS)
    store.add_samples(Sample(payload, answer) for payload in PAYLOADS for answer in "ab")
    store.request_comparisons(overlap=1)
    for payload in PAYLOADS:
        given = store.assign(store.rater(payload[:100]).id)
        store.vote(given.id, {"choice": "left"}, key=payload, reason=payload)
    with served(store) as url, harmless(chromium) as page:
        page.goto(f"{url}/organiser")
        assert page.locator(".raters tbody tr").count() == 100
        assert page.locator(".raters th *:not(.glyph)").count() == 0
        assert page.get_by_role("textbox", name="Guidelines").input_value() == store.guidelines.replace(
            "\0", "\ufffd"
        )
    with served(store, public_url="http://rate.example.org") as url, harmless(chromium) as page:
        for payload in PAYLOADS[::5]:
            page.goto(f"{url}/join/{store.new_token(payload[:100]).token}")
            assert page.locator("h1 *:not(.glyph)").count() == 0


def test_none_runs_in_an_address(store, chromium):
    """Errors echo nothing of what was asked for. Their status is in the console, and nothing else."""
    with served(store) as url:
        context = chromium.new_context()
        page = context.new_page()
        said = []
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("console", lambda message: said.append(message.text))
        for payload in PAYLOADS[::5]:
            page.goto(f"{url}/join/" + page.evaluate("encodeURIComponent", payload))
            assert page.evaluate("window.pwned") is None
            assert "alert" not in page.content()
        assert {text[:56] for text in said} == {"Failed to load resource: the server responded with a sta"}
        context.close()
