"""People in the loop: a model answers, people compare on a page in their browsers, and what they prefer is written to a file.

python examples/05_people_in_the_loop.py [votes] [folder]

Everything is kept in the folder's feedback.db: stop and start again as often as you like.
"""

import sys
from pathlib import Path

from agents.comparing import rating_page
from agents.generation import complete, policy_for
from agents.ledger import fingerprint
from reward_models.preferences import Origin
from reward_models.preferences.entries import Sample
from reward_models.preferences.store import FeedbackStore
from text_envs.tasks.support_reply import FOLDER, SupportReplyEnv, prompts


def main(votes: int = 20, folder: str = "runs/example-05", port: int = 8000, raters=lambda address: None):
    """Collect `votes` comparisons of two answers of SupportReply-v0's own model. Returns what was exported."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    task = SupportReplyEnv().task
    customers = [row for row in prompts("train")[:: len(prompts("train")) // votes][:votes] for _ in range(2)]
    answers = complete(policy_for(task, FOLDER), task, customers)
    origin = Origin(fingerprint(FOLDER, weights_only=True), {"temperature": 1.0}, seed=None)

    with FeedbackStore(f"{folder}/feedback.db") as store:
        if not store.items():
            samples = store.add_samples(
                Sample(a.prompt, a.response, origin, dict(a.columns)) for a in answers
            )
            store.request_comparisons(overlap=1, samples=samples)
        store.guidelines = (
            "Prefer the reply that you would rather get as a customer: polite, brief, and of help."
        )
        with rating_page(store, "127.0.0.1", port) as address:
            print(f"Open {address} and compare; Ctrl-C stops, and every vote is kept.")
            raters(address)
            store.wait(min(votes, store.progress().votes_needed))
        export = store.export(f"{folder}/comparisons.jsonl", kind="comparisons", format="trl")
    print(f"{export.rows} comparisons in {export.path}: train on them with `rlhf reward train`.")
    return export


if __name__ == "__main__":
    main(*(int(argument) if argument.isdigit() else argument for argument in sys.argv[1:]))
