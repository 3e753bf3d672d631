"""The JSON API against its own OpenAPI description, by schemathesis: whatever is sent, it answers as described."""

import pytest

schemathesis = pytest.importorskip("schemathesis")

from hypothesis import HealthCheck, given, seed, settings  # noqa: E402
from schemathesis import GenerationMode, checks  # noqa: E402

from reward_models.preferences.store import FeedbackStore  # noqa: E402
from tests.reward_models.preferences.serving import fill, served  # noqa: E402

HEADERS = {"Authorization": "Bearer Ann"}
EXPECTED = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture
def schema(quick_path):
    with FeedbackStore(quick_path / "feedback.db") as store:
        fill(store)
        store.request_comparisons(overlap=5)
        store.request_rankings(k=3)
        store.request_demonstrations()
        store.assign(store.rater("Ann").id)  # so that some ids are of something
        with served(store) as url:
            yield schemathesis.openapi.from_url(f"{url}/openapi.json")


def send(schema, examples: int) -> int:
    """Send `examples` requests to every operation, half of them against its description. Returns how many were sent."""
    sent = 0
    for operation in (result.ok() for result in schema.get_all_operations()):
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @seed(0)
            @settings(
                max_examples=examples // 2,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def one(case):
                nonlocal sent
                sent += 1
                case.call_and_validate(headers=HEADERS, checks=EXPECTED)

            try:
                one()
            except (
                schemathesis.core.errors.SchemathesisError
            ) as error:  # an operation that cannot be asked wrongly
                assert mode is GenerationMode.NEGATIVE, error
    return sent


def test_hundreds_of_requests_are_answered_as_described(schema):
    assert len(list(schema.get_all_operations())) == 7
    assert send(schema, examples=32) >= 200


@pytest.mark.slow
def test_thousands_of_requests_are_answered_as_described(schema):
    assert send(schema, examples=300) >= 2000
