from __future__ import annotations

import pytest

from service.families.fake import FakeModel
from service.lab.machine import about, command, machine


@pytest.mark.parametrize(
    ("argument", "written"),
    [
        ("/home/somebody/corpus", "corpus"),
        ("--out=/srv/x/out.json", "--out=out.json"),
        ("../shared/corpus", "corpus"),
        ("~/corpus/", "corpus"),
        ("corpus/test", "corpus/test"),
        ("openai/whisper-base", "openai/whisper-base"),
        ("--grid=1,2:0.5", "--grid=1,2:0.5"),
        ("dense,fast", "dense,fast"),
    ],
)
def test_a_command_names_no_folder_of_the_machine(argument: str, written: str) -> None:
    assert command(["evaluate", argument]) == f"winnow evaluate {written}"


def test_a_machine_says_what_it_is() -> None:
    found = machine("cpu", threads=3)
    assert found["threads"] == 3
    assert found["cpu"]
    assert "gpu" not in found


def test_a_report_says_both_types_and_the_threads() -> None:
    found = about(["evaluate"], FakeModel().info, threads=3)
    assert found["machine"]["threads"] == 3
    model = found["model"]
    assert (model["dtype"], model["weight_dtype"]) == ("float32", "float32")
