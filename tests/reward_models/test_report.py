"""A report is one page that asks nothing of the network, and shows every text as text."""

import re

import pytest

from reward_models.report import Answer, Report, new_figure


def page(**kwargs):
    report = Report("A title", "what was measured")
    report.facts({"Accuracy": ("0.87", "0.84 to 0.89"), "Pairs": 602})
    report.heading("One")
    report.text("A paragraph.")
    report.warning("Look out.")
    report.table(["judge", "accuracy"], [["this model", 0.87], ["longer wins", 0.51]])
    for _ in range(2):
        with new_figure() as (figure, axes):
            axes.plot([0, 1], [0, 1], label="line")
            axes.legend()
        report.figure(figure, "A line.")
    report.samples([("a prompt", [Answer("an answer", "chosen", "1.20"), Answer("", "rejected")])])
    return report


def test_every_block_is_on_the_page_in_order():
    html = page().html()
    body = html[html.index("<body>") :]
    wanted = ["A title", "what was measured", "0.87", "0.84 to 0.89", "602", "One", "A paragraph.", "Look out.",
              "this model", "longer wins", "A line.", "a prompt", "an answer", "(nothing)"]  # fmt: skip
    places = [body.index(text) for text in wanted]
    assert places == sorted(places)


def test_page_loads_nothing_and_runs_nothing():
    html = page().html()
    assert "<script" not in html
    links = re.findall(r'(?:href|src)="([^"]*)"|url\(([^)]*)\)', html)
    assert links and all((a or b).startswith("#") for a, b in links)


def test_ids_of_two_figures_differ():
    ids = re.findall(r'\bid="([^"]*)"', page().html())
    assert len(ids) == len(set(ids)) > 10
    assert {link for link in re.findall(r'href="#([^"]*)"', page().html())} <= set(ids)


def test_figure_takes_the_colour_and_font_of_the_page():
    html = page().html()
    figure = html[html.index("<svg") : html.index("</svg>")]
    assert "currentColor" in figure and "#000000" not in figure and "font-family" not in figure
    assert '">line</text>' in figure  # text stays text


def test_figures_side_by_side_have_one_caption():
    report = Report("t")
    with new_figure() as (left, _), new_figure() as (right, _):
        report.figures([left, right], "Both.")
    report.figures([], "None.")
    html = report.html()
    assert html.count("<svg") == 2 and html.count("<figcaption>") == 1
    assert 'class="drawing panels"' in html


def test_same_content_same_page():
    assert page().html() == page().html()


@pytest.mark.parametrize(
    "block", ["heading", "text", "warning", "caption", "cell", "fact", "prompt", "answer", "title"]
)
def test_no_text_is_markup(block):
    evil = "<img src=x onerror=alert(1)>\u202e\x1b"
    report = Report(evil if block == "title" else "t", evil)
    if block in ("heading", "text", "warning"):
        getattr(report, block)(evil)
    report.table([evil], [[evil]], caption=evil)
    report.facts({evil: (evil, evil)})
    report.samples([(evil, [Answer(evil, evil, evil)])], caption=evil)
    html = report.html()
    assert "<img" not in html and "&lt;img" in html
    assert "\u202e" not in html and "\x1b" not in html and ">RLO</span>" in html and ">ESC</span>" in html


def test_columns_of_numbers_are_set_to_the_right():
    report = Report("t")
    report.table(["name", "value", "interval"], [["a", "-1.5", "0.1 to 0.2"], ["b", "12 %", "–"]])
    assert re.findall(r'<th scope="col"( class="number")?>', report.html()) == [
        "",
        ' class="number"',
        ' class="number"',
    ]


def test_an_interval_may_stand_below_its_number():
    report = Report("t")
    report.table(["score", "text"], [["0.5 (0.4 to 0.6)", "a (b)"]])
    assert (
        '<td class="number">0.5 <span class="interval">(0.4 to 0.6)</span></td><td>a (b)</td>'
        in report.html()
    )


def test_row_of_the_wrong_length_is_named():
    with pytest.raises(ValueError, match="Row 2 of a table has 1 cells for 2 headings"):
        Report("t").table(["a", "b"], [["1", "2"], ["3"]])


def test_lone_surrogate_is_written(tmp_path):
    report = Report("t")
    report.text("broken \ud800 text")
    report.write(tmp_path / "report.html")
    assert re.search(
        'broken <span class="glyph"[^>]*>U.D800</span> text', (tmp_path / "report.html").read_text()
    )


def test_words_that_are_new_against_another_answer_are_marked():
    answer = Answer("we will swap it now", compared_with="we will fix it")
    assert answer.parts == [("we will", False), (" swap", True), (" it", False), (" now", True)]
    report = Report("Title")
    report.samples([("prompt", [answer])])
    assert "we will<mark> swap</mark> it<mark> now</mark>" in report.html()


def test_an_answer_that_is_compared_with_nothing_has_no_marks():
    assert Answer(" a b ").parts == [("a b", False)]
    assert Answer(" ", compared_with="a").parts == []
