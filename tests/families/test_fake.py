from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from service.families.fake import FIRST_TIME, FakeModel
from service.model.protocol import SpeechModel
from service.profiles import BUILT_IN, Profile
from service.types import DecodeOptions, Hypothesis, Piece

FLOOR = -1.0


def window(*bands_of_seconds: int | None) -> torch.Tensor:
    """A log-mel window with one loud band in each second; None is a silent second."""
    mel_FT = torch.full((80, 3000), FLOOR)
    for second, band in enumerate(bands_of_seconds):
        if band is not None:
            mel_FT[band, 100 * second : 100 * (second + 1)] = 1.0
    return mel_FT


def run(
    model: FakeModel,
    *windows: torch.Tensor,
    profile: Profile = BUILT_IN["dense"],
    options: DecodeOptions | None = None,
) -> list[Hypothesis]:
    batch = model.new_decode_batch()
    encoded = model.encode(torch.stack(windows), [profile] * len(windows))
    batch.join(range(len(windows)), encoded, [options or DecodeOptions()] * len(windows))
    done: dict[int, Hypothesis] = {}
    while len(batch):
        done |= batch.step()
    return [done[key] for key in range(len(windows))]


def text(model: FakeModel, hypothesis: Hypothesis) -> str:
    return "".join(piece.text for piece in model.split_text(hypothesis.tokens))


def test_it_is_a_speech_model() -> None:
    model: SpeechModel = FakeModel()
    assert model.info.num_frames == 1500


def test_text_comes_from_the_sound_and_not_from_the_batch() -> None:
    model = FakeModel()
    one, other = window(3, 4), window(5)
    alone = [text(model, run(model, w)[0]) for w in (one, other)]
    assert alone[0] != alone[1]
    assert [text(model, h) for h in run(model, other, one)] == [alone[1], alone[0]]


def test_silence_has_no_text() -> None:
    (hypothesis,) = run(FakeModel(), window())
    assert hypothesis.tokens == ()
    assert hypothesis.no_speech_prob > 0.9


def test_pieces_carry_the_times_of_the_sound() -> None:
    model = FakeModel()
    (hypothesis,) = run(model, window(None, 3, 4, None, None, 5))
    times = [(piece.start_s, piece.end_s) for piece in model.split_text(hypothesis.tokens)]
    assert times == [(1.0, 3.0), (5.0, 6.0)]
    assert all(piece.text.startswith(" ") for piece in model.split_text(hypothesis.tokens))


def test_without_timestamps_there_are_none() -> None:
    model = FakeModel()
    mel_FT = window(None, 3, 4)
    (hypothesis,) = run(model, mel_FT, options=DecodeOptions(timestamps=False))
    spoken = text(model, run(model, mel_FT)[0])
    assert model.split_text(hypothesis.tokens) == [Piece(None, None, spoken, hypothesis.tokens)]


@pytest.mark.parametrize("timestamps", [True, False])
def test_a_word_lasts_the_second_that_it_names(timestamps: bool) -> None:
    model = FakeModel()
    asked = DecodeOptions(timestamps=timestamps)
    heard = window(None, 3, 4, None, 5)
    (hypothesis,) = run(model, heard, options=asked)
    (encoded,) = model.encode(heard[None], [BUILT_IN["dense"]])
    words = model.find_words(encoded, hypothesis, asked)
    assert [(w.start, w.end) for w in words] == [(1, 2), (2, 3), (4, 5)]
    assert "".join(w.text for w in words) == text(model, hypothesis)


def test_options_are_followed() -> None:
    model = FakeModel()
    mel_FT = window(3, 4)
    options = DecodeOptions(language="de", task="translate", temperature=0.4)
    (hypothesis,) = run(model, mel_FT, options=options)
    assert (hypothesis.language, hypothesis.temperature) == ("de", 0.4)
    assert text(model, hypothesis) == text(model, run(model, mel_FT)[0]).upper()


@pytest.mark.parametrize(
    ("sparsity", "kept"), [(0.0, 1500), (0.5, 750), (0.6, 600), (0.9, 150), (0.9999, 1)]
)
def test_a_profile_keeps_its_share_of_the_frames(sparsity: float, kept: int) -> None:
    profile = Profile("p", sparsity=sparsity)
    (encoded,) = FakeModel().encode(window(3)[None], [profile])
    assert encoded.states_TD.shape == (kept, 1)
    assert encoded.positions_T.shape == (kept,)
    assert encoded.positions_T.dtype == torch.int64
    assert bool((encoded.positions_T.diff() > 0).all())
    (hypothesis,) = run(FakeModel(), window(3), profile=profile)
    assert (hypothesis.kept_frames, hypothesis.total_frames) == (kept, 1500)


def test_the_late_drop_takes_its_share_of_what_is_left() -> None:
    profile = Profile("p", sparsity=0.5, pool="mean", late=1 / 3)
    (encoded,) = FakeModel().encode(window(3)[None], [profile])
    assert (encoded.states_TD.shape, encoded.pooled) == ((500, 1), True)


def test_times_survive_the_drop() -> None:
    model = FakeModel()
    mel_FT = window(None, 3, 4, None, 5)
    dense, fast = (
        run(model, mel_FT, profile=profile)[0].tokens
        for profile in (BUILT_IN["dense"], BUILT_IN["fast"])
    )
    assert dense == fast


def test_one_token_a_step_and_windows_join_and_leave() -> None:
    model = FakeModel()
    batch = model.new_decode_batch()
    long, short = model.encode(torch.stack([window(1, 2, 3), window(4)]), [BUILT_IN["dense"]] * 2)
    batch.join([7], [long], [DecodeOptions(timestamps=False)])
    assert batch.step() == {}
    batch.join([9], [short], [DecodeOptions(timestamps=False)])
    assert [list(batch.step()) for _ in range(3)] == [[], [9], [7]]
    assert len(batch) == 0


def test_dropped_windows_are_forgotten() -> None:
    model = FakeModel()
    batch = model.new_decode_batch()
    batch.join(
        [1, 2],
        model.encode(torch.stack([window(1)] * 2), [BUILT_IN["dense"]] * 2),
        [DecodeOptions()] * 2,
    )
    batch.drop([1, 5])
    assert len(batch) == 1
    with pytest.raises(ValueError, match="key 2"):
        batch.join([2], model.encode(window(1)[None], [BUILT_IN["dense"]]), [DecodeOptions()])


def test_it_fails_where_it_is_told_to() -> None:
    def is_bad(mel_FT: torch.Tensor) -> bool:
        return mel_FT[5, 0].item() > 0

    model = FakeModel(fail_encode_when=is_bad)
    run(model, window(3))
    with pytest.raises(RuntimeError, match="in encode"):
        run(model, window(3), window(5))
    model = FakeModel(fail_step_when=is_bad)
    run(model, window(3))
    encoded = model.encode(torch.stack([window(3), window(5)]), [BUILT_IN["dense"]] * 2)
    batch = model.new_decode_batch()
    batch.join([0, 1], encoded, [DecodeOptions()] * 2)
    with pytest.raises(RuntimeError, match="in step"):
        batch.step()


def test_shapes_and_tokens_are_checked() -> None:
    model = FakeModel()
    with pytest.raises(ValueError, match="mel must be"):
        model.encode(torch.zeros(1, 80, 100), [BUILT_IN["dense"]])
    with pytest.raises(ValueError, match="mel must be"):
        model.encode(torch.zeros(2, 80, 3000), [BUILT_IN["dense"]])
    with pytest.raises(ValueError, match="vocabulary"):
        model.split_text([FIRST_TIME + 1501])
    with pytest.raises(ValueError, match="num_mels"):
        FakeModel(num_mels=129)


def test_a_time_that_is_missing_is_none() -> None:
    pieces = FakeModel().split_text([2, FIRST_TIME + 50, FIRST_TIME + 100, 3])
    assert pieces == [
        Piece(None, 1.0, " bi", (2, FIRST_TIME + 50)),
        Piece(2.0, None, " bo", (FIRST_TIME + 100, 3)),
    ]


@given(st.lists(st.tuples(st.lists(st.integers(0, 9), min_size=1), st.booleans()), max_size=6))
def test_tokens_go_to_the_piece_they_made(runs: list[tuple[list[int], bool]]) -> None:
    expected, tokens = [], []
    for number, (words, has_start) in enumerate(runs):
        # Without a start a piece needs the end before it, to be a piece of its own.
        own = [FIRST_TIME + 2 * number] * has_start + [*words, FIRST_TIME + 2 * number + 1]
        expected.append(tuple(own))
        tokens += own
    assert [piece.tokens for piece in FakeModel().split_text(tokens)] == expected


def test_tokens_that_make_no_text_make_no_piece() -> None:
    assert FakeModel().split_text([FIRST_TIME]) == []
