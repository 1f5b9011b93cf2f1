"""Resolving a job's reply exactly once, whoever comes first: result, error or cancellation."""

from __future__ import annotations

from concurrent.futures import InvalidStateError

from service.errors import WinnowError
from service.types import Job, WindowResult


def resolve(job: Job, result: WindowResult) -> bool:
    """Hands the result over; False if the reply was already cancelled or resolved."""
    try:
        job.reply.set_result(result)
    except InvalidStateError:
        return False
    return True


def reject(job: Job, error: WinnowError) -> bool:
    """Hands the error over; False if the reply was already cancelled or resolved."""
    try:
        job.reply.set_exception(error)
    except InvalidStateError:
        return False
    return True
