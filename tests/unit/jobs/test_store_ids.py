from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.jobs.records import Lane
from mesh.jobs.store.ids import ID_CHARACTERS, SECRET_BYTES, Ids

SECRET = bytes(range(SECRET_BYTES))
IDS = Ids(SECRET)
times = st.floats(0, 8e9)
lanes = st.sampled_from(Lane)
CHARACTERS = "0123456789abcdefghijklmnopqrstuv"


@given(lanes, times)
def test_an_id_tells_its_lane_and_when_it_came(lane: Lane, time: float) -> None:
    made = IDS.make(lane, time)
    told = IDS.parse(made)
    assert told is not None
    assert told.lane is lane
    assert told.time <= time < told.time + 0.0011
    assert len(made) == ID_CHARACTERS
    assert set(made) <= set(CHARACTERS)


@given(lanes, times)
def test_an_id_of_another_store_is_unknown(lane: Lane, time: float) -> None:
    assert Ids(bytes(SECRET_BYTES)).parse(IDS.make(lane, time)) is None


@given(lanes, times, st.integers(0, ID_CHARACTERS - 1), st.sampled_from(CHARACTERS))
def test_an_id_with_another_character_is_unknown(lane: Lane, time: float, place: int, character: str) -> None:
    made = IDS.make(lane, time)
    changed = made[:place] + character + made[place + 1 :]
    assert (IDS.parse(changed) is None) == (changed != made)


@given(st.text(max_size=40) | st.text(CHARACTERS, min_size=ID_CHARACTERS, max_size=ID_CHARACTERS))
def test_any_text_is_an_unknown_id(text: str) -> None:
    assert IDS.parse(text) is None


@given(lanes, times)
def test_an_id_is_written_in_one_way(lane: Lane, time: float) -> None:
    made = IDS.make(lane, time)
    assert IDS.parse(made.upper()) is None or made == made.upper()
    assert IDS.parse(made + " ") is None
    assert IDS.parse(made[:-1]) is None


@given(lanes, lanes, times, times)
def test_ids_sort_as_their_jobs_came(one: Lane, other: Lane, first: float, second: float) -> None:
    if int(first * 1000) < int(second * 1000):
        assert IDS.make(one, first) < IDS.make(other, second)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_clock_that_is_far_off_still_gives_ids(time: float) -> None:
    assert IDS.parse(IDS.make(Lane.LOW, time)) is not None


def test_no_two_ids_are_the_same() -> None:
    assert len({IDS.make(Lane.HIGH, 1.0) for _ in range(1000)}) == 1000
