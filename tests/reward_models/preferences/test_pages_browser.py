"""The pages in a real Chromium: keys, dragging, drafts, lost connections, phones, links."""

import re

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
from playwright.sync_api import expect  # noqa: E402

from reward_models.preferences.store import FeedbackStore, Sample  # noqa: E402
from tests.reward_models.preferences.serving import ANSWERS, fill, served  # noqa: E402

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture
def store(quick_path):
    with FeedbackStore(quick_path / "feedback.db") as store:
        yield fill(store)


@pytest.fixture
def url(store):
    with served(store, rater="Ann") as url:
        yield url


@pytest.fixture
def page(chromium, url):
    context = chromium.new_context()
    page = context.new_page()
    page.said = []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    yield page
    context.close()
    assert page.said == []


def question(page, text):
    expect(page.get_by_role("heading", level=1)).to_have_text(text)


def status(page, text):
    expect(page.get_by_role("status")).to_have_text(text)


def choices(store):
    return [vote.answer["choice"] for vote in store.votes(current=True)]


# Comparing


def test_keys_vote_and_undo(store, page, url):
    fill(store, 6).request_comparisons(overlap=1)
    page.goto(url)
    question(page, "Which answer is better?")
    for key, votes in [("1", 1), ("2", 2), ("0", 3), ("b", 4), ("s", 5), ("u", 4), ("B", 5)]:
        page.keyboard.press(key)
        expect(page.locator("#count")).to_have_text(f"{votes} of 6")
        expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
    assert choices(store) == ["left", "right", "tie", "both_bad", "both_bad"]
    assert len(store.votes()) == 7  # nothing is taken away: the undo is a row of its own
    assert all(0 < vote.seconds < 60 for vote in store.votes(current=True))


def test_buttons_vote_with_a_reason(store, page, url):
    store.request_comparisons(overlap=1)
    page.goto(url)
    question(page, "Which answer is better?")
    shown = page.locator(".answer .text").all_inner_texts()
    page.keyboard.press("r")  # the field takes the keys from here on
    page.keyboard.type("1 is kinder, 2 is short")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Answer 2").click()
    status(page, "Saved")
    (record,) = store.comparisons()
    assert (record.chosen, record.reason) == (shown[1], "1 is kinder, 2 is short")


def test_single_keys_can_be_switched_off(store, page, url):
    store.request_comparisons(overlap=1)
    page.goto(url)
    page.get_by_role("button", name="Ann").click()
    page.get_by_label("Answer by single keys").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    page.reload()
    question(page, "Which answer is better?")
    page.keyboard.press("1")
    page.get_by_role("button", name="Tie").click()
    status(page, "Saved")
    assert choices(store) == ["tie"]


def test_everything_can_be_reached_by_tab_and_read_out(store, page, url):
    store.request_comparisons(overlap=1)
    page.goto(url)
    question(page, "Which answer is better?")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    for role in ("banner", "main", "navigation"):
        expect(page.get_by_role(role)).to_have_count(1)
    for name in ("Answer 1", "Answer 2"):
        expect(page.get_by_role("article", name=name)).to_be_visible()
    expect(page.get_by_role("progressbar", name="Answers so far")).to_be_visible()
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim().slice(0, 8)"))
    for name in ("Answer 1", "Tie", "Answer 2", "Both bad", "Skip", "Guidelin"):
        assert any(text.startswith(name) for text in reached), (name, reached)


# Ranking


def ranking(store, page, url):
    """The ranking page, and a function that gives its answers' letters from the top down."""
    store.request_rankings(k=3, n=1)
    page.goto(url)
    question(page, "Put the answers in order, the best on top")
    return lambda: [
        name[-1]
        for name in page.locator(".ranking > li").evaluate_all("all => all.map(li => li.dataset.name)")
    ]


def test_ranking_by_keys_with_ties_and_one_that_cannot_be_ranked(store, page, url):
    order = ranking(store, page, url)
    page.keyboard.press("ArrowDown")  # the first answer, A
    page.keyboard.press("3")
    assert order() == ["B", "C", "A"]
    page.keyboard.press("=")
    status(page, "Answer A: tied for place 2.")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")  # B
    page.keyboard.press("0")
    assert order() == ["C", "A", "B"]
    status(page, "Answer B: cannot be ranked.")
    page.keyboard.press("Enter")
    status(page, "Saved")
    assert store.votes()[0].answer == {"ranks": [1, None, 1]}


def test_ranking_by_shifted_arrows_and_buttons(store, page, url):
    order = ranking(store, page, url)
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+ArrowDown")
    assert order() == ["B", "A", "C"]
    page.get_by_role("button", name="Move answer C up").click()
    assert order() == ["B", "C", "A"]
    page.get_by_role("button", name="Answer A ties with the one above").click()
    page.get_by_role("button", name="This is my order").click()
    status(page, "Saved")
    assert store.votes()[0].answer == {"ranks": [2, 1, 2]}


@pytest.mark.parametrize("settings", [{}, PHONE], ids=["desktop", "phone"])
def test_ranking_by_dragging(store, chromium, url, settings):
    context = chromium.new_context(**settings)
    page = context.new_page()
    order = ranking(store, page, url)
    last, first = page.locator(".handle").nth(2), page.locator(".handle").nth(0)
    last.scroll_into_view_if_needed()
    start = last.bounding_box()
    page.mouse.move(start["x"] + 10, start["y"] + 12)
    page.mouse.down()
    page.mouse.move(start["x"] + 12, start["y"] - 10, steps=4)
    end = first.bounding_box()
    page.mouse.move(end["x"] + 12, end["y"] + 2, steps=8)
    page.mouse.up()
    assert order() == ["C", "A", "B"]
    page.get_by_role("button", name="This is my order").click()
    status(page, "Saved")
    assert store.votes()[0].answer == {"ranks": [2, 3, 1]}
    context.close()


def test_an_order_nobody_touched_is_asked_about_once(store, page, url):
    ranking(store, page, url)
    page.keyboard.press("Enter")
    status(page, "You have moved no answer. Press once more if this is your order.")
    page.keyboard.press("Enter")
    status(page, "Saved")
    assert store.votes()[0].answer == {"ranks": [1, 2, 3]}


def test_an_unfinished_order_survives_a_reload(store, page, url):
    order = ranking(store, page, url)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("2")
    page.keyboard.press("=")
    page.reload()
    question(page, "Put the answers in order, the best on top")
    assert order() == ["B", "A", "C"]
    page.keyboard.press("Enter")
    status(page, "Saved")
    assert store.votes()[0].answer == {"ranks": [1, 1, 2]}


# Demonstrations and ratings


def test_a_draft_survives_a_reload_and_another_device(store, page, url, chromium):
    store.request_demonstrations()
    page.goto(url)
    question(page, "Write the best answer you can")
    page.get_by_label("Your answer").fill("Dear customer,\n1 2 b s u")
    expect(page.locator("#draft")).to_have_text("Draft saved.")
    page.get_by_label("Your answer").press_sequentially("!")
    page.reload()  # before the change was saved
    expect(page.get_by_label("Your answer")).to_have_value("Dear customer,\n1 2 b s u!")
    expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
    other = chromium.new_context()
    elsewhere = other.new_page()
    elsewhere.goto(url)
    expect(elsewhere.get_by_label("Your answer")).to_have_value(re.compile("Dear customer"))
    other.close()
    page.get_by_label("Your answer").press("Control+Enter")
    expect(page.locator("#count")).to_have_text("1 of 3")
    assert store.demonstrations()[0].response == "Dear customer,\n1 2 b s u!"


def test_an_empty_answer_is_not_handed_in(store, page, url):
    store.request_demonstrations()
    page.goto(url)
    page.get_by_role("button", name="Hand in").click()
    status(page, "Write an answer first.")
    expect(page.get_by_label("Your answer")).to_be_focused()
    assert store.votes() == []


def test_skipping_gives_an_item_to_the_others(store, page, url):
    store.request_demonstrations()
    page.goto(url)
    first = page.locator(".prompt .text").inner_text()
    page.keyboard.press("s")
    status(page, "Skipped")
    assert page.locator(".prompt .text").inner_text() != first
    assert store.assign(store.rater("Bob").id).prompt == first


def test_ratings_by_key(store, page, url):
    store.request_ratings(n=2)
    page.goto(url)
    question(page, "How good is this answer?")
    page.keyboard.press("4")
    expect(page.locator("#count")).to_have_text("1 of 2")
    page.keyboard.press("1")
    question(page, "Nothing left to do. Thank you!")
    assert [rating.score for rating in store.ratings()] == [4, 1]


# Connections


def test_a_click_while_offline_is_kept_and_sent(store, chromium, url):
    store.request_comparisons(overlap=1)
    context = chromium.new_context()
    page = context.new_page()
    page.goto(url)
    question(page, "Which answer is better?")
    context.set_offline(True)
    page.keyboard.press("2")
    status(page, "Offline. Your answer is kept; trying again …")
    assert store.votes() == []
    context.set_offline(False)
    status(page, "Saved")
    assert choices(store) == ["right"]
    context.close()


def test_a_tab_that_closes_with_an_unsent_answer_sends_it_when_it_opens_again(store, chromium, url):
    store.request_comparisons(overlap=1)
    context = chromium.new_context()
    page = context.new_page()
    page.route("**/api/vote", lambda route: route.abort())
    page.goto(url)
    question(page, "Which answer is better?")
    page.keyboard.press("1")
    status(page, "The server does not answer. Your answer is kept; trying again …")
    page.close()
    later = context.new_page()
    later.goto(url)
    status(later, "Saved what was left to send.")
    assert choices(store) == ["left"]
    context.close()


def test_an_answer_whose_receipt_is_lost_counts_once(store, chromium, url):
    store.request_comparisons(overlap=1)
    context = chromium.new_context()
    page = context.new_page()
    seen = []

    def lose_the_first(route):
        seen.append(route.request.post_data_json["key"])
        if len(seen) > 1:
            return route.continue_()
        route.fetch()  # the server has it
        route.abort()

    page.route("**/api/vote", lose_the_first)
    page.goto(url)
    question(page, "Which answer is better?")
    page.keyboard.press("1")
    status(page, "Saved")
    assert len(seen) == 2 and seen[0] == seen[1]
    assert choices(store) == ["left"]
    context.close()


def test_an_item_that_went_to_others_is_said_so(store, chromium, url):
    store.request_comparisons(overlap=1, n=1)
    context = chromium.new_context()
    page = context.new_page()
    page.goto(url)
    question(page, "Which answer is better?")
    mine = store.assign(store.rater("Ann").id, lease=0)
    others = store.assign(store.rater("Bob").id)
    store.vote(others.id, {"choice": "tie"}, key="bob")
    assert mine.item == others.item
    page.keyboard.press("1")
    question(page, "Nothing left to do. Thank you!")
    expect(page.get_by_role("status")).to_have_text(re.compile("lease .* has run out"))
    assert choices(store) == ["tie"]
    context.close()


def test_the_last_page_looks_for_new_work(store, page, url):
    page.clock.install()
    page.goto(url)
    question(page, "Nothing to rate yet")
    store.request_ratings()
    page.clock.fast_forward(11_000)
    question(page, "How good is this answer?")
    status(page, "There is something to do.")


# Everywhere


def visit_all(store, page, url):
    """Every page in turn."""
    for path in ("/", "/organiser", "/nowhere"):
        page.goto(url + path)
        yield path
    requests = {
        "comparison": lambda: store.request_comparisons(overlap=1),
        "ranking": lambda: store.request_rankings(k=3),
        "rating": lambda: store.request_ratings(n=1),
        "demonstration": store.request_demonstrations,
    }
    for kind, request in requests.items():
        request()
        page.goto(url)
        expect(page.locator(f'[data-kind="{kind}"]')).to_be_visible()
        yield kind
        rater = store.rater("Ann").id
        answer = {
            "comparison": {"choice": "skip"},
            "ranking": {"ranks": [None] * 3},
            "rating": {"score": 1},
            "demonstration": {"response": "x"},
        }[kind]
        while given := store.assign(rater, kinds=[kind]):
            store.vote(given.id, answer, key=f"{given.id}")


def test_nothing_scrolls_sideways_on_a_phone(store, chromium, url):
    long = "https://example.org/" + "x" * 300
    store.add_samples([Sample(long, long + answer) for answer in ANSWERS])
    store.guidelines = long
    context = chromium.new_context(**PHONE)
    page = context.new_page()
    for where in visit_all(store, page, url):
        assert page.evaluate("document.scrollingElement.scrollWidth") == 390, where
    with served(store, public_url="http://rate.example.org") as public:
        for path in (f"/join/{store.add_rater('Boss', organiser=True).token}", "/organiser"):
            page.goto(public + path)
            assert page.evaluate("document.scrollingElement.scrollWidth") == 390, path
    context.close()


LINES_OF_BUTTONS = """[...document.querySelectorAll(".actions button")].map((button) => {
  const words = document.createRange();
  words.selectNode(button.firstChild);
  return [button.firstChild.textContent, words.getClientRects().length];
})"""


@pytest.mark.parametrize("width", [360, 833, 1024, 1280])
def test_no_buttons_words_are_broken(store, chromium, url, width):
    context = chromium.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    for where in visit_all(store, page, url):
        lines = dict(page.evaluate(LINES_OF_BUTTONS))
        assert set(lines.values()) <= {1}, (where, lines)
        assert page.evaluate("document.scrollingElement.scrollWidth") == width, where
    context.close()


def test_a_personal_link_from_another_site_opens_the_page(store, chromium):
    store.request_comparisons(overlap=1)
    token = store.add_rater("Kim").token
    with served(store, public_url="http://rate.example.org") as url:
        context = chromium.new_context()
        page = context.new_page()
        page.route(
            "http://mail.example/",
            lambda route: route.fulfill(
                body=f'<a href="{url}/join/{token}">yours</a>', content_type="text/html"
            ),
        )
        page.goto("http://mail.example/")
        page.get_by_text("yours").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Welcome, Kim")
        page.get_by_role("link", name="Start").click()
        question(page, "Which answer is better?")
        page.keyboard.press("1")
        status(page, "Saved")
        assert store.comparisons()[0].rater == "Kim"
        context.close()


def test_names_can_be_changed_on_ones_own_machine(store, chromium):
    store.request_comparisons(overlap=2)
    with served(store) as url:
        context = chromium.new_context()
        page = context.new_page()
        for name in ("Ann", "Bob <b>"):
            page.goto(url)
            page.get_by_label("Your name").fill(name)
            page.get_by_label("Your name").press("Enter")
            question(page, "Which answer is better?")
            page.keyboard.press("1")
            status(page, "Saved")
            page.get_by_role("button", name=name).click()
            page.get_by_role("button", name="Rate under another name").click()
        question(page, "Who is rating?")
        assert [record.rater for record in store.comparisons()] == ["Ann", "Bob <b>"]
        context.close()


def test_the_organiser_writes_guidelines_that_raters_read(store, page, url):
    store.request_comparisons(overlap=1)
    page.goto(f"{url}/organiser")
    page.get_by_role("textbox", name="Guidelines for raters").fill("Be kind.\n\n\u202eBe brief.")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("textbox", name="Guidelines for raters")).to_have_value(
        "Be kind.\n\n\u202eBe brief."
    )
    page.goto(url)
    expect(page.get_by_role("dialog", name="Guidelines")).to_contain_text("Be brief.")
    page.keyboard.press("1")  # not while the panel is open
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.reload()  # the panel opens by itself once
    question(page, "Which answer is better?")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("g")
    expect(page.get_by_role("dialog", name="Guidelines")).to_contain_text("Be kind.")
    assert store.votes() == []


def test_the_organiser_downloads(store, page, url):
    store.request_comparisons(overlap=1)
    given = store.assign(store.rater("Ann").id)
    store.vote(given.id, {"choice": "left"}, key="k")
    page.goto(f"{url}/organiser")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download JSONL").click()
    assert given.responses[0] in download.value.path().read_text()
