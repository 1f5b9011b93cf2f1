"""Whatever can be sent by the OpenAPI document: nothing may end in a server error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .harness import Running, running, voice

AUDIO = voice(0.5)
PATHS = {
    *(
        "/transcribe",
        "/detect-language",
        "/explain",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
    ),
    *(
        "/v1/models",
        "/v1/models/{model_id}",
        "/api/ps",
        "/api/ps/{model_id}",
        "/profiles",
        "/healthz",
        "/readyz",
        "/metrics",
    ),
}


@pytest.fixture(scope="module")
def one() -> Iterator[Running]:
    with running(max_audio_seconds=5, explain=True) as started:
        yield started


def operations(one: Running) -> dict[str, Any]:
    found: Any = schemathesis.openapi.from_url(f"{one.url}/openapi.json").get_all_operations()
    return {operation.ok().path: operation.ok() for operation in found}


# Values that the document can say in full, so that what is generated is mostly right.
ENUMERATED = ("task", "response_format", "channels", "stream", "vad", "temperature")


def heard(case: Any) -> None:
    """Makes what was generated get past the door: a recording, and names that are served."""
    case.query = {}
    if isinstance(case.body, dict):
        kept = {name: case.body[name] for name in ENUMERATED if name in case.body}
        case.body = {**kept, "file": AUDIO, **({"model": "fake"} if "model" in case.body else {})}
    elif case.operation.body:
        case.body = AUDIO


@pytest.mark.parametrize("path", sorted(PATHS))
def test_no_request_of_the_document_ends_in_a_server_error(one: Running, path: str) -> None:
    operation = operations(one)[path]
    statuses: Counter[int] = Counter()

    @settings(
        max_examples=20,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), is_heard=st.booleans())
    def fuzz(case: Any, is_heard: bool) -> None:
        if is_heard:
            heard(case)
        answer = case.call()
        statuses[answer.status_code] += 1
        assert answer.status_code < 500
        if answer.status_code >= 400:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

    fuzz()
    assert statuses[200] + statuses[404] > 0  # it was answered, not only refused


def test_every_route_is_in_the_document(one: Running) -> None:
    assert set(operations(one)) == PATHS
