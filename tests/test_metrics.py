"""The series that are read at scrape time."""

from __future__ import annotations

import pytest
import torch

from service.metrics import Metrics


def test_a_cuda_device_is_asked_at_every_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"cuda:1": 100}
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: held[device])
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2 * held[device])
    metrics = Metrics()
    metrics.watch_device_memory("cuda:1")
    held["cuda:1"] = 300

    def value(kind: str) -> float | None:
        return metrics.registry.get_sample_value("winnow_device_memory_bytes", {"kind": kind})

    assert (value("allocated"), value("reserved")) == (300, 600)


def test_on_the_cpu_memory_is_the_process_s() -> None:
    metrics = Metrics()
    metrics.watch_device_memory("cpu")
    resident = metrics.registry.get_sample_value("process_resident_memory_bytes")
    assert resident is not None
    assert resident > 1e6
    held = metrics.registry.get_sample_value("winnow_device_memory_bytes", {"kind": "allocated"})
    assert held is None
