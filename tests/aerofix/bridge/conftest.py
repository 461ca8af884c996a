import pytest

from aerofix.bridge.solution import Solution

AT_S = 1_781_431_932.25  # 2026-06-14T10:12:12.25Z, a Sunday


@pytest.fixture(scope="session")
def solution():
    """``solution(**fields)``: 24.26°N 120.72°W, all of it known unless a field says otherwise."""

    def make(**fields):
        usual = {"time_s": AT_S, "lat": 24.26012, "lon": -120.71854, "accuracy_m": 12.0, "heading_deg": 90.0}
        usual |= {"height_m": 118.0, "altitude_m": 153.5, "velocity_m_s": (-6.0, 8.0)}
        return Solution(**usual | fields)

    return make
