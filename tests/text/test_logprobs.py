"""Tokens with their log-probabilities and bytes."""

from __future__ import annotations

from service.text.logprobs import logprobs_json
from service.types import Segment

BYTES = {1: b" caf", 2: b"\xc3", 3: b"\xa9", 90: b""}


def test_bytes_are_exact_where_a_token_is_part_of_a_character() -> None:
    segment = Segment(
        0, 0.0, 1.0, " café", (90, 1, 2, 3, 90), -0.2, 0.0, 1.0, 0.0,
        token_logprobs=(-9.0, -0.1234567, -0.25, -0.5, -9.0),
    )  # fmt: skip
    listed = logprobs_json([segment], lambda token: BYTES[token])
    assert listed == [
        {"token": " caf", "logprob": -0.123457, "bytes": [32, 99, 97, 102]},
        {"token": "\ufffd", "logprob": -0.25, "bytes": [0xC3]},
        {"token": "\ufffd", "logprob": -0.5, "bytes": [0xA9]},
    ]
    assert b"".join(bytes(one["bytes"]) for one in listed).decode() == segment.text
