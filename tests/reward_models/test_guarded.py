"""Whatever a guarded reward does, the caller gets scores or an error in time, and no process is left behind."""

import copy
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import psutil
import pytest

from reward_models import Completion, Guarded, RewardError, make, register, score

HERE = "tests.reward_models.rewards:"


def replies(*texts):
    return [Completion("a prompt", text) for text in texts]


def descendants():
    return {process.pid for process in psutil.Process().children(recursive=True)}


@pytest.fixture(autouse=True)
def leaves_no_process():
    before = descendants()
    yield
    deadline = time.monotonic() + 5
    while (left := descendants() - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


@pytest.fixture
def guard():
    """Makes guarded rewards and closes them."""
    made = []

    def make_guarded(reward, **kwargs):
        made.append(Guarded(reward, **kwargs))
        return made[-1]

    yield make_guarded
    for guarded in made:
        guarded.close()


def test_scores_are_those_of_the_reward(guard):
    guarded = guard(HERE + "length", scale=0.5)
    assert score(guarded, replies("abc", "")).tolist() == [1.5, 0.0]
    assert score(guarded, replies("abcd")).tolist() == [2.0]
    assert guarded.counts == dict(batches=2, errors=0, timeouts=0, deaths=0, constants=0, restarts=0)


@pytest.mark.parametrize(
    "spec",
    [
        "length",
        {"name": "clip", "reward": {"name": "length", "target": 4}, "low": 0.0},
        make("length", target=4),
        lambda completions: [1 - abs(len(c.response.split()) - 4) / 4 for c in completions],
    ],
    ids=["name", "nested", "object", "lambda"],
)
def test_whatever_make_takes_can_be_guarded(guard, spec):
    guarded = guard(spec, **({"target": 4} if spec == "length" else {}))
    assert score(guarded, replies("one two three")).tolist() == [0.75]


def test_make_takes_json_and_registered_names_reach_the_worker(guard):
    register(
        "twice the length (test)", lambda: lambda completions: [2.0 * len(c.response) for c in completions]
    )
    guarded = make("guarded", reward="twice the length (test)", timeout=30)
    assert score(guarded, replies("abc")).tolist() == [6.0]
    guarded.close()


def test_trl_style_function_and_columns(guard):
    rows = [Completion("p", "a", columns={"answer": "a"}), Completion("p", "a", columns={"answer": "b"})]
    assert score(guard(HERE + "trl"), rows).tolist() == [1.0, 0.0]


def test_large_batches_pass(guard):
    assert score(guard(HERE + "length"), replies(*["x" * 1_000_000] * 3)).tolist() == [1e6] * 3


def test_what_a_reward_prints_and_reads_does_not_disturb(guard):
    assert score(guard(HERE + "noisy"), replies("a", "b")).tolist() == [0.0, 0.0]


def test_error_names_the_completion_and_the_worker_goes_on(guard):
    guarded = guard(HERE + "picky")
    with pytest.raises(RewardError, match=r"raised KeyError: 'q', on completion 1 of 3 .*response 'quack'"):
        score(guarded, replies("a", "quack", "c"))
    with pytest.raises(RewardError, match=r"returned nan .*completion 0 of 1"):
        score(guarded, replies("no"))
    assert score(guarded, replies("abc")).tolist() == [3.0]
    assert guarded.counts | {"batches": 3, "errors": 2, "restarts": 0} == guarded.counts


def test_constant_replaces_only_the_completions_that_fail(guard):
    guarded = guard(HERE + "picky", on_error="constant", constant=-5.0)
    assert score(guarded, replies("abc", "quack", "no", "ab")).tolist() == [3.0, -5.0, -5.0, 2.0]
    assert guarded.counts == dict(batches=1, errors=1, timeouts=0, deaths=0, constants=2, restarts=0)


@pytest.mark.parametrize("kind", ["short", "object"])
def test_rubbish_is_an_error(guard, kind):
    with pytest.raises(RewardError, match="returned"):
        score(guard(HERE + "rubbish", kind=kind), replies("a", "b"))
    constant = guard(HERE + "rubbish", kind=kind, on_error="constant", constant=7.0)
    assert score(constant, replies("a", "b")).tolist() == [7.0, 7.0]


@pytest.mark.parametrize(
    ("how", "count", "says"),
    [
        ("sleep", "timeouts", "gave no answer within 0.5 s"),
        ("regex", "timeouts", "gave no answer within 0.5 s"),
        ("subprocess", "timeouts", "gave no answer within 0.5 s"),
        ("exit", "deaths", "exited with status 3"),
        ("segfault", "deaths", r"killed by a signal \(Segmentation fault"),
        ("fork", "deaths", "exited with status 5"),
    ],
)
def test_hang_and_death_end_in_time_and_the_worker_is_replaced(guard, how, count, says):
    guarded = guard(HERE + "misbehaves", timeout=0.5)
    first = score(guarded, replies("fine"))[0]
    started = time.monotonic()
    with pytest.raises(RewardError, match=says):
        score(guarded, replies("fine", how))
    assert time.monotonic() - started < 2.5
    assert score(guarded, replies("fine"))[0] != first
    assert guarded.counts == dict.fromkeys(guarded.counts, 0) | {"batches": 3, count: 1, "restarts": 1}


def test_sys_exit_is_an_error_of_the_reward_and_costs_no_worker(guard):
    guarded = guard(HERE + "misbehaves", timeout=0.5)
    with pytest.raises(RewardError, match="raised SystemExit: 4, on completion 1 of 2"):
        score(guarded, replies("fine", "sys.exit"))
    assert guarded.counts == dict.fromkeys(guarded.counts, 0) | {"batches": 1, "errors": 1}


@pytest.mark.parametrize("how", ["sleep", "exit"])
def test_constant_replaces_a_batch_that_hangs_or_dies(guard, how):
    guarded = guard(HERE + "misbehaves", timeout=0.5, on_error="constant", constant=-1.0)
    assert score(guarded, replies("fine", how)).tolist() == [-1.0, -1.0]
    assert score(guarded, replies("fine"))[0] > 0
    assert guarded.counts["constants"] == 2


@pytest.mark.parametrize("on_error", ["raise", "constant"])
def test_reward_that_was_never_made_is_always_raised(guard, on_error):
    for spec, says in [
        (HERE + "lenght", "Did you mean 'length'?"),
        (HERE + "cannot_be_made", "could not be made: OSError: no such model"),
        (HERE + "hangs_when_made", "gave no answer within 0.5 s"),
    ]:
        with pytest.raises(RewardError, match=says):
            score(
                guard(spec, on_error=on_error, start_timeout=0.5 if "hangs" in spec else 60.0), replies("a")
            )


def test_copies_share_no_worker(guard):
    guarded = guard(HERE + "misbehaves")
    pid = score(guarded, replies("fine"))[0]
    for other in (copy.deepcopy(guarded), pickle.loads(pickle.dumps(guarded))):
        assert score(other, replies("fine"))[0] != pid
        other.close()
    assert score(guarded, replies("fine"))[0] == pid


def test_forked_process_has_a_worker_of_its_own(guard):
    guarded = guard(HERE + "misbehaves")
    parents = score(guarded, replies("fine"))[0]
    child = os.fork()
    if child == 0:
        childs = score(guarded, replies("fine"))[0]
        guarded.close()
        os._exit(0 if childs != parents else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert score(guarded, replies("fine"))[0] == parents


def test_interrupted_batch_does_not_answer_the_next(guard):
    guarded = guard(slow_length)
    assert score(guarded, replies("a")).tolist() == [1.0]
    old = signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            score(guarded, replies("abc", "abc"))
    finally:
        signal.signal(signal.SIGALRM, old)
    assert score(guarded, replies("ab", "ab")).tolist() == [2.0, 2.0]


def slow_length(completions):
    time.sleep(0.2)
    return [len(completion.response) for completion in completions]


class LengthWithLock:
    """Cannot be pickled."""

    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, completions):
        return [len(completion.response) for completion in completions]


def script(tmp_path, text):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(text))
    return subprocess.Popen(
        [sys.executable, str(path)],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_script_without_main_guard_guards_its_own_function_and_leaves_nothing(tmp_path):
    """The worker does not run the script again, and ends with it although nobody closed it."""
    process = script(
        tmp_path,
        """
        import os
        from reward_models import Completion, Guarded, score
        print("once")
        def mine(completions):
            return [os.getpid()] * len(completions)
        guarded = Guarded(mine)
        print(int(score(guarded, [Completion("", "")])[0]))
        """,
    )
    out, _ = process.communicate(timeout=60)
    once, worker = out.split()
    assert once == "once" and process.returncode == 0
    assert not psutil.pid_exists(int(worker))


def test_worker_that_hangs_ends_soon_after_its_parent_was_killed(tmp_path):
    process = script(
        tmp_path,
        """
        import os, time
        from reward_models import Completion, Guarded, score
        def hangs(completions):
            print(os.getpid(), flush=True)
            time.sleep(1000)
        score(Guarded(hangs), [Completion("", "")])
        """,
    )
    worker = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(worker) and time.monotonic() < deadline:
        if psutil.Process(worker).status() == psutil.STATUS_ZOMBIE:
            break  # dead; whoever adopted it has not reaped it yet
        time.sleep(0.1)
    assert not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE


def test_mistakes_are_named():
    with pytest.raises(RewardError, match=r"no reward model named 'lenght'.*Did you mean 'length'"):
        Guarded("lenght")
    with pytest.raises(RewardError, match="no reward model named 'lenght'"):
        Guarded({"name": "lenght", "target": 3})
    with pytest.raises(RewardError, match="on_error is 'ignore'"):
        Guarded("length", on_error="ignore")
    with pytest.raises(RewardError, match="timeout 0"):
        Guarded("length", timeout=0)
    with pytest.raises(RewardError, match="constant is nan"):
        Guarded("length", constant=float("nan"))
    with pytest.raises(RewardError, match="cannot be sent to a worker process"):
        Guarded(LengthWithLock())
    with pytest.raises(RewardError, match=r"a batch cannot be sent to the worker.*\['lock'\]"):
        score(
            Guarded("length", target=1),
            [Completion("", "", columns={"lock": threading.Lock()})],
        )


def test_counts_of_parts_add_up(guard):
    parts = [guard(HERE + "picky", on_error="constant") for _ in range(2)]
    total = make("clip", reward=make("weighted_sum", rewards=parts, weights=[1, 2]), high=8.0)
    np.testing.assert_array_equal(score(total, replies("abc", "quack")), [8.0, 0.0])
    assert total.counts == dict(batches=2, errors=2, timeouts=0, deaths=0, constants=2, restarts=0)
