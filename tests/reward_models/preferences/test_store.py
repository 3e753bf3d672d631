"""The contract of FeedbackStore, on SQLite and on PostgreSQL: what goes in, who gets what, what comes out."""

import json
import threading
from pathlib import Path

import pytest

from reward_models.preferences.records import Comparison, Demonstration, Origin, Ranking, Rating
from reward_models.preferences.store import (
    Conflict,
    FeedbackError,
    FeedbackStore,
    LeaseExpired,
    NotFound,
    Sample,
)

LEFT = {"choice": "left"}
STRANGE = "a\0b \ud800 \x01 \u202e \U0001f600"


def side_of(assignment, word):
    """The choice that means: the answer that starts with `word`."""
    return ("left", "right")[[response.startswith(word) for response in assignment.responses].index(True)]


class TestWhatIsAsked:
    def test_the_same_prompt_twice_is_one_prompt(self, store):
        assert store.add_prompts(["a", "b", "a"]) == [1, 2, 1]
        assert store.add_prompts([{"prompt": "b"}, "c"]) == [2, 3]

    def test_columns_tell_prompts_of_one_text_apart_and_the_text_alone_means_the_first(self, store):
        rows = [{"prompt": "2 + 2", "answer": 4}, {"prompt": "2 + 2", "answer": "four"}, "2 + 2"]
        assert store.add_prompts(rows) == [1, 2, 1]

    def test_a_sample_is_its_prompt_response_and_origin(self, store):
        origin = Origin("abc", {"temperature": 0.7}, 3)
        samples = [Sample("p", "r"), Sample("p", "r", origin), Sample("p", "r"), Sample("p", "s")]
        assert store.add_samples(samples) == [1, 2, 1, 3]
        assert store.add_samples(samples) == [1, 2, 1, 3]

    def test_more_rows_than_one_statement_takes(self, store):
        assert len(set(store.add_samples([Sample("p", f"r{i}") for i in range(1201)]))) == 1201
        assert len(store.request_ratings()) == 1201

    def test_a_repeated_request_gives_the_same_items_and_a_larger_overlap(self, store, pairs):
        store.add_samples(pairs(3))
        first = store.request_comparisons(overlap=1, seed=5)
        assert sorted(first) == [1, 2, 3]
        assert store.request_comparisons(seed=5, overlap=2) == first
        assert [item.overlap for item in store.items()] == [2, 2, 2]
        store.request_comparisons(seed=5, overlap=1)
        assert store.progress().votes_needed == 6

    def test_items_show_responses_in_stored_order(self, store):
        store.add_samples([Sample("p", "one", columns={"n": 1}), Sample("p", "two", columns={"n": 1})])
        store.request_comparisons(overlap=1)
        (item,) = store.items()
        assert (item.kind, item.prompt, item.responses, item.columns) == (
            "comparison",
            "p",
            ("one", "two"),
            {"n": 1},
        )

    def test_only_the_named_prompts_and_samples_are_used(self, store, pairs):
        samples = store.add_samples(pairs(3))
        store.request_ratings(samples=samples[:1])
        store.request_comparisons(overlap=1, prompts=[2])
        store.request_demonstrations(prompts=[3])
        asked = [(item.kind, item.responses, item.prompt) for item in store.items()]
        assert asked == [
            ("rating", ("good 0",), "prompt 0"),
            ("comparison", ("good 1", "bad 1"), "prompt 1"),
            ("demonstration", (), "prompt 2"),
        ]

    @pytest.mark.parametrize(
        ("ask", "says"),
        [
            (lambda s: s.add_prompts(["a", 7]), "Prompt 1 is 7"),
            (lambda s: s.add_prompts([{"text": "a"}]), '"prompt"'),
            (lambda s: s.add_prompts([{"prompt": "a", "x": float("nan")}]), "null instead of NaN"),
            (lambda s: s.add_samples([Sample("p", None)]), "Sample 0"),
            (lambda s: s.request_comparisons(overlap=1), "no prompt has two different answers"),
            (lambda s: s.request_rankings(k=1), "2 to 100"),
            (lambda s: s.request_comparisons(overlap=0), "overlap is 0"),
            (lambda s: s.request_comparisons(overlap=1, n=True), "n is True"),
            (lambda s: s.request_ratings(samples=[9]), "no samples with the ids"),
            (lambda s: s.request_demonstrations(prompts=[9]), "no prompts with the ids"),
            (lambda s: s.add_gold(9, LEFT), "no item 9"),
        ],
    )
    def test_what_cannot_be_asked_is_refused(self, store, ask, says):
        with pytest.raises(FeedbackError, match=f"(?i){says}"):
            ask(store)
        assert store.items() == []


class TestRaters:
    def test_a_token_opens_for_its_rater_and_is_not_stored(self, store, store_url):
        access = store.add_rater("Ann", organiser=True)
        ann = store.rater_of(access.token)
        assert (ann.id, ann.name, ann.organiser) == (access.id, "Ann", True)
        assert store.rater_of("guess") is None
        if store_url.startswith("sqlite"):
            assert (
                access.token.encode() not in Path(store_url.removeprefix("sqlite:///") + "-wal").read_bytes()
            )

    def test_a_new_token_closes_the_old_one(self, store):
        old = store.add_rater("Ann")
        new = store.new_token("Ann")
        assert (store.rater_of(old.token), store.rater_of(new.token).name) == (None, "Ann")
        with pytest.raises(NotFound, match="add_rater"):
            store.new_token("Bob")

    def test_names_are_unique(self, store):
        store.add_rater("Ann")
        with pytest.raises(Conflict, match="'Ann'"):
            store.add_rater("Ann")
        assert store.rater("Ann") == store.rater("Ann") == store.raters()[0]
        with pytest.raises(FeedbackError, match="1 to 100"):
            store.rater(" ")


class TestAssigning:
    def test_an_item_goes_to_as_many_as_its_overlap_and_to_nobody_twice(self, store, pairs):
        store.add_samples(pairs(1))
        store.request_comparisons(overlap=2)
        ann, bob, cy = (store.rater(name).id for name in ("Ann", "Bob", "Cy"))
        first = store.assign(ann)
        assert store.assign(bob).item == first.item
        assert store.assign(cy) is None
        store.vote(first.id, LEFT, key="a")
        assert store.assign(ann) is None

    def test_an_open_assignment_is_given_again_and_its_lease_renewed(self, store, pairs, clock):
        store.add_samples(pairs(2))
        store.request_comparisons(overlap=1)
        ann = store.rater("Ann").id
        first = store.assign(ann, lease=60)
        assert first.expires == clock.now + 60
        clock.now += 50
        again = store.assign(ann, lease=60)
        assert (again.id, again.responses, again.expires) == (first.id, first.responses, clock.now + 60)

    def test_an_expired_lease_is_given_to_another(self, store, pairs, clock):
        store.add_samples(pairs(1))
        store.request_comparisons(overlap=1)
        ann, bob = store.rater("Ann").id, store.rater("Bob").id
        late = store.assign(ann, lease=60)
        assert store.assign(bob) is None
        clock.now += 60
        taken = store.assign(bob)
        assert taken.item == late.item
        with pytest.raises(LeaseExpired, match="others have taken its place"):
            store.vote(late.id, LEFT, key="late")
        store.vote(taken.id, LEFT, key="in time")

    def test_a_late_vote_counts_while_the_item_has_room(self, store, pairs, clock):
        store.add_samples(pairs(1))
        store.request_comparisons(overlap=2)
        ann, bob = store.rater("Ann").id, store.rater("Bob").id
        late = store.assign(ann, lease=60)
        clock.now += 61
        store.assign(bob)  # sweeps Ann's lease; one place is left
        store.vote(late.id, {"choice": "tie"}, key="late")
        assert store.assign(store.rater("Cy").id) is None
        assert store.progress().votes == 1

    def test_leases_of_others_that_ran_out_make_room_for_what_one_left(self, store, pairs, clock):
        store.add_samples(pairs(1))
        store.request_comparisons(overlap=1)
        ann, bob = store.rater("Ann").id, store.rater("Bob").id
        left = store.assign(ann, lease=60)
        clock.now += 60
        store.assign(bob, lease=60)
        clock.now += 60
        assert store.assign(ann).id == left.id

    def test_leases_of_others_that_ran_out_make_room_for_a_late_vote(self, store, pairs, clock):
        store.add_samples(pairs(1))
        store.request_comparisons(overlap=1)
        ann, bob = store.rater("Ann").id, store.rater("Bob").id
        left = store.assign(ann, lease=60)
        clock.now += 60
        store.assign(bob, lease=60)
        clock.now += 60
        assert not store.vote(left.id, LEFT, key="late").repeated

    def test_a_rater_who_comes_back_finds_what_they_left_with_its_draft(self, store, clock):
        store.add_prompts(["one", "two", "three"])
        store.request_demonstrations(overlap=2)
        ann, bob = store.rater("Ann").id, store.rater("Bob").id
        left = store.assign(ann, lease=60)
        store.save_draft(left.id, "Once upon")
        clock.now += 61
        store.assign(bob)
        back = store.assign(ann)
        assert (back.id, back.draft) == (left.id, "Once upon")

    def test_what_is_released_comes_back_last(self, store):
        store.add_prompts(["one", "two"])
        store.request_demonstrations()
        ann = store.rater("Ann").id
        first = store.assign(ann)
        store.release(first.id)
        store.release(first.id)  # once more does nothing
        second = store.assign(ann)
        assert (first.prompt, second.prompt) == ("one", "two")
        store.vote(second.id, {"response": "x"}, key="2")
        assert store.assign(ann).id == first.id

    def test_only_the_kinds_that_were_asked_for(self, store, pairs):
        store.add_samples(pairs(1))
        store.request_comparisons(overlap=1)
        store.request_demonstrations()
        ann = store.rater("Ann").id
        assert store.assign(ann, kinds=["demonstration"]).kind == "demonstration"
        assert store.assign(ann, kinds=["rating"]) is None
        assert store.assign(ann, kinds=["comparison", "ranking"]).kind == "comparison"
        with pytest.raises(FeedbackError, match="poem"):
            store.assign(ann, kinds=["poem"])

    def test_sides_are_shuffled_per_assignment(self, store, pairs):
        store.add_samples(pairs(1))
        store.request_comparisons(overlap=40)
        shown = [store.assign(store.rater(f"r{i}").id).responses[0] for i in range(40)]
        assert 10 < shown.count("good 0") < 30

    @pytest.mark.parametrize("rater", [77, 0, -1, 2**31, 10**30])
    def test_an_unknown_rater_gets_nothing(self, store, pairs, rater):
        store.add_samples(pairs(1))
        store.request_comparisons(overlap=1)
        with pytest.raises(NotFound, match=f"no rater {rater}"):
            store.assign(rater)


class TestVoting:
    @pytest.fixture
    def assignment(self, store, pairs):
        store.add_samples(pairs(2))
        store.request_comparisons(overlap=2)
        return store.assign(store.rater("Ann").id)

    def test_the_same_key_gives_the_same_vote(self, store, assignment):
        first = store.vote(assignment.id, LEFT, key="k", reason="shorter", seconds=2.5)
        again = store.vote(assignment.id, LEFT, key="k", reason="shorter", seconds=9)
        assert (first.repeated, again.repeated) == (False, True)
        assert (again.id, again.answer, again.reason, again.seconds) == (
            first.id,
            LEFT,
            "shorter",
            2.5,
        )
        assert len(store.votes()) == 1

    @pytest.mark.parametrize("other", [{"answer": {"choice": "right"}}, {"reason": "because"}])
    def test_the_same_key_with_other_content_is_a_conflict(self, store, assignment, other):
        store.vote(assignment.id, LEFT, key="k")
        with pytest.raises(Conflict, match="used for something else"):
            store.vote(assignment.id, **({"answer": LEFT} | other), key="k")

    def test_one_assignment_has_one_vote(self, store, assignment):
        store.vote(assignment.id, LEFT, key="k")
        with pytest.raises(Conflict, match="has a vote already"):
            store.vote(assignment.id, LEFT, key="other")

    def test_another_raters_assignment_is_not_found(self, store, assignment):
        bob = store.rater("Bob").id
        for act in (
            lambda: store.vote(assignment.id, LEFT, key="k", rater=bob),
            lambda: store.release(assignment.id, rater=bob),
            lambda: store.save_draft(assignment.id, "x", rater=bob),
            lambda: store.vote(999, LEFT, key="k"),
        ):
            with pytest.raises(NotFound):
                act()

    @pytest.mark.parametrize(
        "answer",
        [
            {}, {"choice": "up"}, {"choice": None}, {"choice": ["left"]}, {"choice": "left", "score": 1}, {"ranks": [1, 2]},
            {"response": "x"}, "left", None, ["left"],
        ],
    )  # fmt: skip
    def test_a_comparison_takes_its_choices_alone(self, store, assignment, answer):
        with pytest.raises(FeedbackError, match=r'"both_bad" \| "skip"') as error:
            store.vote(assignment.id, answer, key="k")
        assert error.value.status == 400
        assert store.votes() == []

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"key": ""}, "1 to 200"),
            ({"key": "k" * 201}, "1 to 200"),
            ({"key": None}, "1 to 200"),
            ({"key": "k", "reason": 5}, "reason is 5"),
            ({"key": "k", "seconds": -1}, "seconds, 0 or more"),
            ({"key": "k", "seconds": float("nan")}, "seconds, 0 or more"),
            ({"key": "k", "seconds": True}, "seconds, 0 or more"),
        ],
    )
    def test_a_key_a_reason_and_seconds_have_their_shapes(self, store, assignment, given, says):
        with pytest.raises(FeedbackError, match=says):
            store.vote(assignment.id, LEFT, **given)

    @pytest.mark.parametrize("ranks", [[1, 2, 3], [0, 1], [1.0, 2], [True, 1], "12", [1, 10**7]])
    def test_a_ranking_takes_a_rank_for_each_response(self, store, ranks):
        store.add_samples([Sample("p", "a"), Sample("p", "b")])
        store.request_rankings(k=2)
        ranking = store.assign(store.rater("Ann").id)
        with pytest.raises(FeedbackError, match="ranking of 2 responses"):
            store.vote(ranking.id, {"ranks": ranks}, key="k")

    @pytest.mark.parametrize("score", [float("nan"), float("inf"), "4", None, True, 10**400])
    def test_a_rating_takes_a_finite_number(self, store, score):
        store.add_samples([Sample("p", "a")])
        store.request_ratings()
        with pytest.raises(FeedbackError, match="finite number"):
            store.vote(store.assign(store.rater("Ann").id).id, {"score": score}, key="k")

    def test_a_failed_write_leaves_nothing_of_itself(self, store, assignment):
        def half_done(connection):
            connection.exec_driver_sql("INSERT INTO meta (key, value) VALUES ('half', 'done')")
            raise RuntimeError("in the middle")

        with pytest.raises(RuntimeError, match="in the middle"):
            store.database.write(half_done)
        assert store.get_meta("half") is None


class TestUndo:
    def test_it_supersedes_the_last_vote_and_gives_the_item_back(self, store, pairs):
        store.add_samples(pairs(2))
        store.request_comparisons(overlap=1)
        ann = store.rater("Ann").id
        first = store.assign(ann)
        vote = store.vote(first.id, LEFT, key="1")
        second = store.assign(ann)
        again = store.undo(ann, key="u")
        assert (again.id, again.responses) == (first.id, first.responses)
        assert store.assign(ann).id == first.id  # before the other one in hand
        assert store.progress().votes == 0
        store.vote(first.id, {"choice": "right"}, key="2")
        assert store.assign(ann).id == second.id
        rows = [(vote.kind, vote.key, vote.supersedes, dict(vote.answer)) for vote in store.votes()]
        assert rows == [
            ("comparison", "1", None, LEFT),
            ("undo", "u", vote.id, {}),
            ("comparison", "2", None, {"choice": "right"}),
        ]
        assert [vote.key for vote in store.votes(current=True)] == ["2"]
        assert [vote.key for vote in store.votes(since=vote.id + 1)] == ["2"]

    def test_its_key_counts_once(self, store, pairs):
        store.add_samples(pairs(2))
        store.request_comparisons(overlap=1)
        ann = store.rater("Ann").id
        for key in ("1", "2"):
            store.vote(store.assign(ann).id, LEFT, key=key)
        assert store.undo(ann, key="u") == store.undo(ann, key="u")
        assert store.progress().votes == 1
        for key, rater in (("1", ann), ("u", store.rater("Bob").id)):
            with pytest.raises(Conflict):
                store.undo(rater, key=key)
        with pytest.raises(Conflict):
            store.vote(store.assign(ann).id, LEFT, key="u")

    def test_one_after_the_other_back_to_the_start(self, store, pairs):
        store.add_samples(pairs(3))
        store.request_comparisons(overlap=1)
        ann = store.rater("Ann").id
        given = []
        for key in ("1", "2", "3"):
            task = store.assign(ann)
            given.append(task.item)
            store.vote(task.id, {"choice": "tie"}, key=key)
        back = [store.undo(ann, key=f"undo {i}").item for i in range(3)]
        assert back == given[::-1]
        assert store.undo(ann, key="undo 3") is None
        assert store.assign(ann).item == given[0]

    def test_it_keeps_the_place(self, store, pairs):
        store.add_samples(pairs(1))
        store.request_comparisons(overlap=1)
        ann = store.rater("Ann").id
        store.vote(store.assign(ann).id, LEFT, key="1")
        store.undo(ann, key="u")
        assert store.assign(store.rater("Bob").id) is None

    def test_a_demonstration_becomes_its_draft(self, store):
        store.add_prompts(["p"])
        store.request_demonstrations()
        ann = store.rater("Ann").id
        task = store.assign(ann)
        store.vote(task.id, {"response": "A good answer."}, key="1")
        with pytest.raises(Conflict, match="draft is closed"):
            store.save_draft(task.id, "more")
        assert store.undo(ann, key="u").draft == "A good answer."


class TestWhatCameOfIt:
    def test_records_are_in_stored_order_and_carry_origins(self, store):
        origins = [Origin(f"model {i}", {"temperature": 1.0}, i) for i in range(3)]
        store.add_samples([Sample("p", f"{i}", origins[i], {"label": "x"}) for i in range(3)])
        store.request_comparisons(overlap=1, n=1, samples=[1, 2])
        store.request_rankings(k=3)
        store.request_ratings(samples=[3])
        store.request_demonstrations()
        ann = store.rater("Ann").id
        compare = store.assign(ann)
        store.vote(
            compare.id, {"choice": ("left", "right")[compare.responses.index("1")]}, key="c", reason="why"
        )
        rank = store.assign(ann)
        store.vote(rank.id, {"ranks": [{"0": 1, "1": None, "2": 2}[r] for r in rank.responses]}, key="r")
        store.vote(store.assign(ann).id, {"score": 4}, key="s")
        store.vote(store.assign(ann).id, {"response": "mine"}, key="d")
        about = {"prompt": "p", "rater": "Ann", "columns": {"label": "x"}}
        comparison = Comparison(
            responses=("0", "1"), choice="right", reason="why", origins=tuple(origins[:2]), **about
        )
        ranking = Ranking(responses=("0", "1", "2"), ranks=(1, None, 2), origins=tuple(origins), **about)
        rating = Rating(response="2", score=4, origin=origins[2], **about)
        demonstration = Demonstration(response="mine", **about)
        assert store.records() == [comparison, ranking, rating, demonstration]
        assert store.comparisons() == [comparison]
        assert store.comparisons()[0].origins[1].sampling == {"temperature": 1.0}
        assert store.rankings() == [ranking]
        assert store.ratings() == [rating]
        assert store.demonstrations() == [demonstration]

    def test_a_vote_knows_what_it_says_in_stored_order(self, store, pairs):
        store.add_samples(pairs(8))
        store.request_comparisons(overlap=1)
        ann = store.rater("Ann").id
        for key in range(8):
            task = store.assign(ann)
            store.vote(task.id, {"choice": side_of(task, "good")}, key=str(key))
        assert {vote.stored["choice"] for vote in store.votes()} == {"left"}
        assert {vote.shown for vote in store.votes()} == {(0, 1), (1, 0)}

    def test_strange_text_comes_back_as_it_went_in(self, store):
        store.add_samples([Sample(STRANGE, "\x01" + STRANGE, columns={"x": STRANGE})])
        store.request_ratings()
        store.request_demonstrations()
        ann = store.rater(STRANGE)
        task = store.assign(ann.id)
        assert (task.prompt, task.responses, task.columns) == (STRANGE, ("\x01" + STRANGE,), {"x": STRANGE})
        store.vote(task.id, {"score": 1}, key=STRANGE, reason=STRANGE)
        task = store.assign(ann.id)
        store.save_draft(task.id, STRANGE)
        assert store.assign(ann.id).draft == STRANGE
        store.vote(task.id, {"response": STRANGE}, key="d")
        rating, demonstration = store.records()
        assert (rating.rater, rating.reason, demonstration.response) == (STRANGE, STRANGE, STRANGE)

    def test_the_longest_and_strangest_key_and_name(self, store, pairs):
        store.add_samples(pairs(1))
        store.request_comparisons(overlap=1)
        ann = store.rater("\U0001f600" * 99 + "\0")
        key = "\U0001f600" * 199 + "\ud800"
        vote = store.vote(store.assign(ann.id).id, LEFT, key=key)
        assert (store.vote(vote.assignment, LEFT, key=key).id, store.raters()) == (vote.id, [ann])

    def test_progress_counts_current_votes(self, store, pairs):
        store.add_samples(pairs(3))
        store.request_comparisons(overlap=2)
        store.request_demonstrations(prompts=[1])
        ann, bob = store.rater("Ann").id, store.rater("Bob").id
        for rater, seconds in ((ann, 2), (ann, 4), (ann, 9), (bob, None)):
            task = store.assign(rater, kinds=["comparison"])
            choice = "skip" if seconds == 9 else side_of(task, "good")
            store.vote(task.id, {"choice": choice}, key=f"{rater}{seconds}", seconds=seconds)
        store.undo(bob, key="u")
        progress = store.progress()
        assert (progress.items, progress.items_done, progress.votes, progress.votes_needed) == (4, 0, 3, 7)
        assert progress.by_kind == {
            "comparison": {"items": 3, "items_done": 0, "votes": 3, "votes_needed": 6},
            "demonstration": {"items": 1, "items_done": 0, "votes": 0, "votes_needed": 1},
        }
        work = [
            (w["name"], w["votes"], w["skips"], w["undone"], w["seconds_median"]) for w in progress.by_rater
        ]
        assert work == [("Ann", 3, 1, 0, 4), ("Bob", 0, 0, 1, None)]

    def test_gold_items_measure_raters(self, store, pairs):
        store.add_samples([*pairs(2), *(Sample("ranked", f"{i}") for i in range(3))])
        for item in store.request_comparisons(overlap=2, prompts=[1, 2]):
            store.add_gold(item, LEFT)  # the good one was added first
        store.add_gold(*store.request_rankings(k=3, overlap=2), {"ranks": [1, 2, 3]})
        careful, careless = store.rater("Careful").id, store.rater("Careless").id
        for rater, word, order in ((careful, "good", "012"), (careless, "bad", "021")):
            while task := store.assign(rater):
                if task.kind == "comparison":
                    answer = {"choice": side_of(task, word)}
                else:
                    answer = {"ranks": [order.index(response) + 1 for response in task.responses]}
                store.vote(task.id, answer, key=f"{rater} {task.id}")
        quality = [(work["gold"], work["gold_accuracy"]) for work in store.progress().by_rater]
        assert quality == [
            (3, 1.0),
            (3, pytest.approx(2 / 9)),
        ]  # of three pairs, the careless ranking has two right

    def test_a_skip_is_no_mistake(self, store, pairs):
        store.add_samples(pairs(1))
        store.add_gold(*store.request_comparisons(overlap=1), LEFT)
        store.vote(store.assign(store.rater("Ann").id).id, {"choice": "skip"}, key="k")
        assert store.progress().by_rater[0]["gold_accuracy"] is None
        with pytest.raises(FeedbackError, match="says nothing"):
            store.add_gold(1, {"choice": "skip"})

    def test_export_writes_a_file_and_keeps_its_hash(self, store, pairs, tmp_path, clock):
        store.add_samples(pairs(2))
        store.request_comparisons(overlap=1)
        ann = store.rater("Ann").id
        for key in ("1", "2"):
            task = store.assign(ann)
            store.vote(task.id, {"choice": side_of(task, "good")}, key=key)
        export = store.export(tmp_path / "pairs.jsonl")
        rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
        assert {(row["chosen"][:4], row["rejected"][:3]) for row in rows} == {("good", "bad")}
        with store.database.read() as connection:
            kept = connection.exec_driver_sql("SELECT rows, sha256, created, last_vote FROM exports").one()
        assert kept == (2, export.sha256, clock.now, 2)
        with pytest.raises(FeedbackError, match="nothing called 'pairs'"):
            store.export(tmp_path / "x.jsonl", kind="pairs")

    def test_wait_returns_when_the_votes_are_there(self, store_url, pairs):
        with FeedbackStore(store_url) as store:
            store.add_samples(pairs(1))
            store.request_comparisons(overlap=1)
            task = store.assign(store.rater("Ann").id)
            assert store.wait(1, timeout=0) == 0
            assert store.wait(1, should_stop=lambda: True) == 0
            vote = threading.Timer(0.05, store.vote, [task.id, LEFT], {"key": "k"})
            vote.start()
            assert store.wait(1, kind="comparison", poll=0.01, timeout=30) == 1
            vote.join()
            assert store.wait(0, kind="rating") == 0

    def test_notes_are_kept(self, store, store_url):
        assert store.guidelines == ""
        store.guidelines = "Be fair."
        store.guidelines = "Be fair. " + STRANGE
        store.set_meta("round", "3")
        with FeedbackStore(store_url) as other:
            assert other.guidelines == "Be fair. " + STRANGE
            assert (other.get_meta("round"), other.get_meta("none", "0")) == ("3", "0")
        for name in ("version", "", "a\0b", "\ud800", "n" * 201):
            with pytest.raises(FeedbackError, match="name of a note"):
                store.set_meta(name, "9")
