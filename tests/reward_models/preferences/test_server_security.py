"""Who is let in, from where, and with how much; and what every answer forbids the browser."""

import json
import re

import pytest

from reward_models.preferences import api, organiser, pages
from reward_models.preferences.security import MAX_BODY, origin_of
from reward_models.preferences.store import FeedbackStore
from tests.reward_models.preferences.serving import HERE, PUBLIC, browser, fill, token

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
FOREIGN = ["evil.example", "127.0.0.1.evil.example", "localhost.", "", "[::1", "127.0.0.1@evil.example"]
PAGES = [
    "/",
    "/organiser",
    "/nowhere",
    "/join/x",
    "/openapi.json",
    "/static/style.css",
    "/api/rater",
    "/api/nowhere",
]


@pytest.fixture
def store(quick_path):
    with FeedbackStore(quick_path / "feedback.db") as store:
        fill(store).request_comparisons(overlap=1)
        yield store


def invited(store, name="Kim", organiser=False):
    """A browser that has opened a personal link."""
    access = store.add_rater(name, organiser=organiser)
    client = browser(store, public_url=PUBLIC, peer=("203.0.113.9", 4000))
    client.get(f"/join/{access.token}")
    return client


# Where a request comes from


@pytest.mark.parametrize("host", FOREIGN)
def test_a_name_that_is_not_ours_is_refused(store, host):
    assert browser(store).get("/", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000"])
def test_this_machine_has_these_names(store, host):
    assert browser(store).get("/", headers={"Host": host}).status_code == 200


def test_without_a_public_address_other_machines_get_nothing(store):
    for peer, status in [
        (("192.168.1.7", 4000), 403),
        (("127.0.0.1", 4000), 200),
        (("::ffff:127.0.0.1", 4000), 200),
    ]:
        assert browser(store, peer=peer).get("/").status_code == status


@pytest.mark.parametrize(
    "headers, status",
    [
        ({"Origin": "http://127.0.0.1:8000"}, 200),
        ({"Origin": "http://127.0.0.1:9000"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 403),  # another port of this machine
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Authorization": "Bearer Ann"}, 403),
    ],
)
@pytest.mark.parametrize("path", ["/task", "/api/assign", "/api/undo"])
def test_a_post_comes_from_our_own_page(store, headers, status, path):
    ann = browser(store, "Ann")
    assert (
        ann.post(path, json={"key": "k"} if path == "/api/undo" else {}, headers=headers).status_code
        == status
    )


def test_every_post_needs_the_token_of_its_session(store):
    ann, bob = browser(store, "Ann"), browser(store, "Bob")
    routers = (api.router, pages.router, organiser.router)
    posts = [route for router in routers for route in router.routes if "POST" in route.methods]
    assert len(posts) >= 10
    for route in posts:
        for wrong in ("", "x" * 64, bob.headers["X-CSRF-Token"]):
            answer = ann.post(route.path, json={}, headers={"X-CSRF-Token": wrong})
            assert answer.status_code in (403, 422), (route.path, wrong)
            answer = ann.post(
                route.path, content=f"csrf={wrong}&name=x", headers=FORM | {"X-CSRF-Token": wrong}
            )
            assert answer.status_code in (403, 422), (route.path, wrong)
    assert store.progress().votes == 0 and store.guidelines == ""
    assert [rater.name for rater in store.raters()] == ["Ann", "Bob"]


def test_the_token_outlives_a_restart(store):
    ann = browser(store, "Ann")
    later = browser(store)
    later.cookies = ann.cookies
    assert (
        later.post("/api/assign", json={}, headers={"X-CSRF-Token": ann.headers["X-CSRF-Token"]}).status_code
        == 200
    )


# How much


@pytest.mark.parametrize(
    "path", ["/api/vote", "/api/draft", "/task", "/name", "/organiser/guidelines", "/nowhere"]
)
def test_a_body_that_is_too_long_is_refused(store, path):
    ann = browser(store, "Ann")
    assert ann.post(path, content=b"x" * (MAX_BODY + 1)).status_code == 413

    def in_pieces():
        for _ in range(MAX_BODY // 1024 + 1):
            yield b"x" * 1024

    assert ann.post(path, content=in_pieces()).status_code == 413


def test_a_demonstration_of_the_longest_kind_goes_through(store):
    store.request_demonstrations()
    ann = browser(store, "Ann")
    given = ann.post("/api/assign", json={"kinds": ["demonstration"]}).json()
    body = {"assignment": given["id"], "answer": {"response": "語" * 100_000}, "key": "k"}
    answer = ann.post("/api/vote", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 200


# What the browser is told


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/organiser",
        "/nowhere",
        "/api/rater",
        "/api/nowhere",
        "/static/style.css",
        "/openapi.json",
        "/join/x",
    ],
)
def test_every_answer_has_the_headers(store, path):
    headers = browser(store).get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    # Pages with forms need the same-origin policy, for their Origin; none lets another site know.
    assert headers["Referrer-Policy"] == ("same-origin" if path in ("/", "/organiser") else "no-referrer")
    assert headers["Cache-Control"] == ("no-cache" if path.startswith("/static/") else "no-store")
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert (
        policy["default-src"] == "'none'"
        and policy["frame-ancestors"] == "'none'"
        and policy["base-uri"] == "'none'"
    )
    assert re.fullmatch(r"'nonce-[\w-]{22}'", policy["script-src"])


def test_the_nonce_is_new_each_time_and_on_all_scripts_and_styles(store):
    ann = browser(store, "Ann")
    nonces = set()
    for path in ("/", "/organiser"):
        page = ann.get(path)
        tags = re.findall(r"<(?:script|link rel=\"stylesheet\")[^>]*>", page.text)
        named = {re.search(r'nonce="([^"]+)"', tag)[1] for tag in tags}
        assert len(named) == 1 and f"'nonce-{next(iter(named))}'" in page.headers["Content-Security-Policy"]
        assert not re.search(r"<[^>]+\son\w+=|style=|javascript:", page.text)
        nonces |= named
    assert len(nonces) == 2


def test_a_breakdown_tells_nothing(store, monkeypatch):
    ann = browser(store, "Ann")
    monkeypatch.setattr(FeedbackStore, "assign", lambda *arguments, **options: 1 / 0)
    ann._transport.raise_server_exceptions = False
    for path in ("/api/assign", "/task"):
        answer = ann.post(path, json={})
        assert answer.status_code == 500 and "division" not in answer.text
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")


# Personal links


def test_a_personal_link_opens_the_page_and_stays_in_a_strict_cookie(store):
    access = store.add_rater("Kim")
    client = browser(store, public_url=PUBLIC)
    welcome = client.get(f"/join/{access.token}")
    assert (
        welcome.status_code == 200 and "Welcome, Kim" in welcome.text
    )  # no redirect: a strict cookie would not be sent along
    (cookie,) = welcome.headers.get_list("set-cookie")
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Secure" in cookie
    assert client.get("/").status_code == 200
    assert (
        client.post("/api/assign", json={}, headers={"X-CSRF-Token": token(client)}).json()["kind"]
        == "comparison"
    )


def test_the_database_holds_no_token(store, quick_path):
    access = store.add_rater("Kim")
    store.close()
    for file in quick_path.iterdir():
        assert access.token.encode() not in file.read_bytes()


@pytest.mark.parametrize("path", ["/join/", "/join/x", "/join/%00", "/join/" + "x" * 5000])
def test_a_wrong_link_opens_nothing(store, path):
    client = browser(store, public_url=PUBLIC)
    assert client.get(path).status_code == 404
    assert client.get("/").status_code == 401


def test_in_public_nobody_gets_in_by_a_name(store):
    client = browser(store, public_url=PUBLIC)
    client.cookies.set("text_envs_rating", "nonce.Kim")
    assert client.get("/").status_code == 401
    assert client.post("/name", data={"name": "Kim", "csrf": "x"}).status_code == 403
    assert store.raters() == []


def test_a_new_link_takes_the_old_ones_place(store):
    kim = invited(store)
    assert kim.get("/").status_code == 200
    store.new_token("Kim")
    assert kim.get("/").status_code == 401


def test_the_organisers_page_is_the_organisers_in_public(store):
    kim, boss = invited(store), invited(store, "Boss", organiser=True)
    nobody = browser(store, public_url=PUBLIC)
    for method, path in [("GET", ""), ("POST", "/guidelines"), ("POST", "/links"), ("POST", "/export")]:
        headers = {"X-CSRF-Token": token(kim)}
        assert kim.request(method, "/organiser" + path, headers=headers).status_code == 403
        assert nobody.request(method, "/organiser" + path).status_code in (401, 403)
    assert "Kim" in boss.get("/organiser").text
    assert 'href="/organiser"' not in kim.get("/").text


def test_the_organiser_makes_links_and_shows_each_once(store):
    boss = invited(store, "Boss", organiser=True)
    page = boss.post("/organiser/links", data={"name": " Lea  M ", "csrf": token(boss, "/organiser")})
    link = re.search(r'value="(https://rate\.example\.org/join/[\w-]+)"', page.text)[1]
    assert link not in boss.get("/organiser").text
    assert "Welcome, Lea M" in browser(store, public_url=PUBLIC).get(link).text


def test_the_organiser_writes_guidelines_and_downloads(store):
    ann = browser(store, "Ann")
    csrf = token(ann, "/organiser")
    ann.post("/organiser/guidelines", data={"text": "Be <b>kind</b>\r\n\u202e", "csrf": csrf})
    assert store.guidelines == "Be <b>kind</b>\n\u202e"
    assert "Be &lt;b&gt;kind&lt;/b&gt;\n<span class=" in ann.get("/").text
    given = ann.post("/api/assign", json={}).json()
    ann.post("/api/vote", json={"assignment": given["id"], "answer": {"choice": "left"}, "key": "k"})
    file = ann.post("/organiser/export", data={"kind": "comparisons", "format": "trl", "csrf": csrf})
    assert file.headers["Content-Disposition"] == 'attachment; filename="comparisons-trl.jsonl"'
    assert json.loads(file.text)["chosen"] == given["responses"][0]
    wrong = ann.post("/organiser/export", data={"kind": "comparisons", "format": "ranked", "csrf": csrf})
    assert wrong.status_code == 400 and "stands alone" in wrong.text


@pytest.mark.parametrize(
    "url", ["rate.example.org", "ftp://rate.example.org", "http://", "javascript:alert(1)"]
)
def test_a_public_address_is_a_web_address(store, url):
    with pytest.raises(ValueError, match="no web address"):
        browser(store, public_url=url)


def test_the_origin_of_an_address():
    assert origin_of("HTTPS://Rate.Example.org:443/x") == "https://rate.example.org"
    assert origin_of("http://192.168.1.5:8000/") == "http://192.168.1.5:8000"
    assert HERE[0] in origin_of("http://127.0.0.1")
