from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidParameter
from service.routes.timestamps import parse_timestamp


@given(st.floats(-1e11, 1e11))
def test_seconds_are_seconds(seconds):
    assert parse_timestamp(repr(seconds)) == seconds


@given(st.datetimes(datetime(1, 1, 2), datetime(5000, 1, 1), timezones=st.just(UTC)))
def test_a_date_is_seconds_since_1970(moment):
    assert parse_timestamp(moment.isoformat()) == moment.timestamp()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T00:00:01.5", 1.5),
        (" 1970-01-01 01:00:00+01:00 ", 0.0),
        ("19700101T000002Z", 2.0),
        ("12.5", 12.5),
        (" 7 ", 7.0),
    ],
)
def test_forms(text, seconds):
    assert parse_timestamp(text) == seconds


@pytest.mark.parametrize("text", ["", "yesterday", "nan", "inf", "-inf", "1e300", "2025-13-01", "12:30", "1,5", "\x00"])
def test_everything_else_is_refused(text):
    with pytest.raises(InvalidParameter, match="timestamp"):
        parse_timestamp(text)
