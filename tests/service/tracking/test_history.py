import pytest

from service.geo import haversine_m, offset
from service.localization.places import Place, PositionError
from service.tracking.history import HINDSIGHT
from service.tracking.track import Track

ORIGIN = (54.7, 3.0)
AREA_M2 = 600.0**2


def at(east_m):
    lat, lon = offset(*ORIGIN, east_m, 0.0)
    return float(lat), float(lon)


def photo(track, second, *places, trust="ambiguous"):
    """A photo that may show these places, each a distance east and a confidence."""
    shown = [Place(*at(east_m), PositionError(3.0), confidence, f"{east_m}") for east_m, confidence in places]
    track.note(track.update(second, shown, AREA_M2, trust), "located" if trust == "located" else "ambiguous")


def test_a_photo_that_is_sure_tells_which_place_those_before_it_showed():
    """The first photos favour the wrong one of two places, 300 m apart; the third can only follow the other."""
    track = Track()
    photo(track, 0, (300, 0.5), (0, 0.4))
    photo(track, 1, (310, 0.5), (10, 0.4))
    assert [entry.accuracy_m for entry in track.history] == [None, None]
    photo(track, 2, (20, 0.99), trust="located")
    assert [entry.hindsight for entry in track.history] == [True, True, False]
    for entry, east_m in zip(track.history, (0, 10, 20), strict=True):
        assert haversine_m(*at(east_m), entry.passed.lat, entry.passed.lon) < 3
        assert entry.accuracy_m < 10
    assert [entry.status for entry in track.history] == ["ambiguous", "ambiguous", "located"]


def test_what_was_known_stays_as_it_was():
    track = Track()
    for second in range(3):
        photo(track, second, (10 * second, 0.99), trust="located")
    before = list(track.history)
    photo(track, 3, (30, 0.99), trust="located")
    assert list(track.history)[:3] == before


def test_what_is_not_sure_tells_nothing_of_others():
    track = Track()
    photo(track, 0, (300, 0.5), (0, 0.4))
    photo(track, 1, (310, 0.5), (10, 0.4))
    photo(track, 2)
    assert not any(entry.hindsight for entry in track.history)
    assert track.history[2].confidence == track.estimate.confidence


def test_no_photo_is_placed_before_the_flight_began_to_be_seen():
    track = Track()
    photo(track, 0)
    photo(track, 1, (10, 0.99), trust="located")
    assert track.history[0].passed is None
    assert track.history[0].accuracy_m is None


@pytest.mark.parametrize("photos", [HINDSIGHT - 1, HINDSIGHT + 20])
def test_a_photo_tells_of_so_many_before_it(photos):
    track = Track()
    for second in range(photos):
        photo(track, second, (second, 0.45), (1000 + second, 0.45))  # two flights that look alike
    assert not any(entry.hindsight for entry in track.history)
    photo(track, photos, (photos, 0.99), trust="located")
    photo(track, photos + 1, (photos + 1, 0.99), trust="located")
    assert all(len(each.path) <= HINDSIGHT for each in track.hypotheses)
    assert sum(entry.hindsight for entry in track.history) == min(photos, HINDSIGHT - 1)
