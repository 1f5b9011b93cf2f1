"""Turns and finals in, items out: their order, their text, and what becomes of what is cleared."""

from __future__ import annotations

from service.errors import EngineError
from service.live.items import (
    Added,
    Completed,
    Failed,
    ItemCommitted,
    ItemEvent,
    Items,
    SpeechStarted,
    SpeechStopped,
)
from service.live.messages import Cleared, Committed, Event
from service.live.session import Final, Partial, TurnBegun, TurnEnded


def final(
    seq: int, text: str = "", language: str = "en", error: EngineError | None = None
) -> Final:
    return Final(seq, 0, 1, text or f"text {seq}", language, error=error)


def ended(seq: int, start: float, end: float, paused: bool = True) -> TurnEnded:
    return TurnEnded(seq, start, end, paused)


def play(items: Items, *events: Event) -> list[ItemEvent]:
    return [told for event in events for told in items.on(event)]


def by_commit(max_seconds: float = 100) -> Items:
    items = Items(max_seconds)
    items.by_pause = False
    return items


def test_a_pause_completes_an_item() -> None:
    told = play(Items(100), TurnBegun(1), ended(1, 1, 4), final(1))
    match told:
        case [
            SpeechStarted(first, 1),
            SpeechStopped(second, 4),
            ItemCommitted(third, None),
            Added(fourth, "text 1"),
            Completed(fifth, "text 1", (), ("en",), 3),
        ]:
            assert first == second == third == fourth == fifth
        case _:
            raise AssertionError(told)


def test_items_follow_on_each_other() -> None:
    told = play(
        Items(100),
        *(TurnBegun(1), ended(1, 1, 4), TurnBegun(5), ended(2, 5, 6), final(1), final(2)),
    )
    committed = [one for one in told if isinstance(one, ItemCommitted)]
    assert [one.previous for one in committed] == [None, committed[0].item_id]
    assert [one.text for one in told if isinstance(one, Completed)] == ["text 1", "text 2"]


def test_a_turn_that_is_cut_is_one_item() -> None:
    told = play(
        Items(100), *(TurnBegun(0), ended(1, 0, 28, False), final(1), ended(2, 28, 40), final(2))
    )
    kinds = [type(one) for one in told]
    assert kinds == [SpeechStarted, Added, SpeechStopped, ItemCommitted, Added, Completed]
    assert isinstance(told[-1], Completed)
    assert told[-1].text == "text 1 text 2"
    assert [one.text for one in told if isinstance(one, Added)] == ["text 1", " text 2"]


def test_without_turn_detection_pauses_end_nothing_and_are_not_told() -> None:
    items = by_commit()
    told = play(items, TurnBegun(0), ended(1, 0, 3), final(1), TurnBegun(4), ended(2, 4, 6))
    assert [type(one) for one in told] == [Added]
    told = play(items, Committed(8), final(2))
    assert [type(one) for one in told] == [ItemCommitted, Added, Completed]
    assert isinstance(told[-1], Completed)
    assert (told[-1].text, told[-1].seconds) == ("text 1 text 2", 8)


def test_text_without_spaces_is_joined_without_them() -> None:
    items = by_commit()
    told = play(
        items,
        *(ended(1, 0, 1), ended(2, 1, 2), final(1, "実在の", "ja"), final(2, "判断", "ja")),
        Committed(3),
    )
    assert isinstance(told[-1], Completed)
    assert (told[-1].text, told[-1].languages) == ("実在の判断", ("ja",))


def test_a_commit_while_somebody_speaks_is_no_pause() -> None:
    told = play(Items(100), TurnBegun(1), ended(1, 1, 3, False), Committed(3), final(1))
    assert [type(one) for one in told] == [SpeechStarted, ItemCommitted, Added, Completed]


def test_an_item_waits_for_those_before_it() -> None:
    items = by_commit()
    told = play(items, ended(1, 0, 1), Committed(2), Committed(3))
    assert [type(one) for one in told] == [ItemCommitted, ItemCommitted]
    assert items.num_waiting == 2
    told = play(items, final(1))
    assert [one.text for one in told if isinstance(one, Completed)] == ["text 1", ""]
    assert items.num_waiting == 0


def test_what_was_cleared_has_no_text() -> None:
    items = by_commit()
    assert [type(one) for one in play(items, ended(1, 0, 1), Cleared(2), final(1))] == [Cleared]
    told = play(items, ended(2, 2, 3), final(2), Committed(4))
    assert isinstance(told[-1], Completed)
    assert (told[-1].text, told[-1].seconds) == ("text 2", 2)


def test_an_item_fails_with_any_part_of_it_and_no_other_does() -> None:
    error = EngineError("no")
    broken = Final(2, 0, 1, "", "", error=error)
    told = play(
        by_commit(),
        *(ended(1, 0, 1), ended(2, 1, 2), final(1), broken, Committed(3)),
        *(ended(3, 3, 4), final(3), Committed(5)),
    )
    assert [one.error for one in told if isinstance(one, Failed)] == [error]
    assert [one.text for one in told if isinstance(one, Completed)] == ["text 3"]


def test_an_item_without_end_is_ended() -> None:
    told = play(by_commit(max_seconds=10), ended(1, 0, 9), ended(2, 9, 11), final(1), final(2))
    assert [type(one) for one in told] == [ItemCommitted, Added, Added, Completed]


def test_the_end_of_the_stream_commits_what_was_said() -> None:
    items = by_commit()
    assert items.close(3) == []
    play(items, ended(1, 0, 1), final(1))
    assert [type(one) for one in items.close(3)] == [ItemCommitted, Completed]
    assert items.uncommitted_s(5) == 2


def test_partials_are_nobodys_item() -> None:
    assert Items(100).on(Partial(1, 0, 1, "so far")) == []
