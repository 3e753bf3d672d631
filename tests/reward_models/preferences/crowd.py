"""A process that rates: `python -m tests.reward_models.preferences.crowd URL NAME N_THREADS`. A line per confirmed vote."""

import sys
import threading
import uuid

from reward_models.preferences.store import FeedbackStore

say = threading.Lock()


def rate(store, name):
    """Rate until nothing is left; every seventh vote is taken back and given again."""
    rater = store.rater(name).id
    count = 0
    while (task := store.assign(rater)) is not None:
        key = uuid.uuid4().hex
        store.vote(task.id, {"choice": "left"}, key=key)
        with say:
            print("vote", key, flush=True)
        count += 1
        if count % 7 == 0:
            store.undo(rater, key=f"undo {key}")
            with say:
                print("undo", f"undo {key}", flush=True)


def main(url, name, n_threads):
    with FeedbackStore(url) as store:
        threads = [threading.Thread(target=rate, args=(store, f"{name} {i}")) for i in range(n_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
