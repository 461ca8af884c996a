import pytest

from service.errors import NotReady, Overloaded
from service.http.door import Door, Stage


def door(most=2, arriving=3, uploads=1, body_bytes=100):
    return Door(most, arriving, uploads, body_bytes)


@pytest.mark.parametrize(("stage", "limit"), [(Stage.INSIDE, 2), (Stage.ARRIVING, 3), (Stage.UPLOADING, 1)])
def test_each_stage_has_its_own_room(stage, limit):
    house = door()
    visits = [house.admit(stage) for _ in range(limit)]
    with pytest.raises(Overloaded) as refused:
        house.admit(stage)
    assert refused.value.numbers == {"limit": limit, "retry_after_s": 1}
    visits.pop().leave()
    visits.append(house.admit(stage))
    for visit in visits:
        visit.leave()
    assert house.empty


def test_whose_answer_is_on_the_way_keeps_nobody_out():
    house = door()
    unread = [house.admit(Stage.INSIDE) for _ in range(2)] + [house.admit(Stage.UPLOADING)]
    for visit in unread:
        visit.answer(200)
    assert house.here[Stage.ANSWERING] == 3
    others = [house.admit(Stage.INSIDE) for _ in range(2)] + [house.admit(Stage.UPLOADING)]
    assert not house.empty
    for visit in unread + others:
        visit.leave()
    assert house.empty


def test_one_late_photo_of_several_counts_as_a_late_answer():
    house = door(most=10)
    visit = house.admit(Stage.INSIDE)
    visit.late = True
    visit.answer(200)
    assert house.limit == pytest.approx(7)


def test_who_only_arrives_keeps_nobody_out_who_is_quicker():
    house = door()
    slow = [house.admit(Stage.ARRIVING) for _ in range(2)]
    quick = house.admit(Stage.ARRIVING)
    quick.enter()
    assert (house.here[Stage.ARRIVING], house.here[Stage.INSIDE]) == (2, 1)
    slow[0].enter()
    with pytest.raises(Overloaded, match="2 requests are being served"):
        slow[1].enter()
    with pytest.raises(Overloaded, match="2 requests are being served"):  # before a byte of it is read
        house.admit(Stage.ARRIVING)
    slow[1].leave()
    quick.leave()
    slow[0].leave()
    assert house.empty


def test_uploads_do_not_wait_for_photos():
    house = door()
    for _ in range(2):
        house.admit(Stage.INSIDE)
    upload = house.admit(Stage.UPLOADING)
    upload.bring(10**12)
    upload.enter()
    assert (upload.stage, house.body_bytes) == (Stage.UPLOADING, 0)


def test_all_bodies_together_have_a_limit():
    house = door()
    one, other = house.admit(Stage.ARRIVING), house.admit(Stage.ARRIVING)
    one.bring(60)
    other.bring(40)
    with pytest.raises(Overloaded, match="100 bytes"):
        other.bring(1)
    other.leave()
    assert house.body_bytes == 60
    one.bring(40)


def test_a_closed_door_lets_finish_what_was_arriving():
    house = door()
    visit = house.admit(Stage.ARRIVING)
    house.closed = True
    for stage in (Stage.ARRIVING, Stage.INSIDE, Stage.UPLOADING):
        with pytest.raises(NotReady):
            house.admit(stage)
    visit.enter()
    assert not house.empty


def test_the_limit_falls_by_a_factor_once_a_wave_and_rises_by_one_a_round(monkeypatch):
    now = iter([100.0, 200.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    house = door(most=100)
    for entered_at in (1.0, 2.0, 99.0):  # one wave: all were inside when the first was late
        house.learn(504, entered_at)
    assert house.limit == pytest.approx(70)
    house.learn(504, 101.0)
    assert house.limit == pytest.approx(49)
    house.here[Stage.INSIDE] = 49
    for _ in range(49):
        house.learn(200, 201.0)
    assert house.limit == pytest.approx(50, abs=0.02)
    for status in (422, 429, 503, 0):
        house.learn(status, 300.0)
    assert house.limit == pytest.approx(50, abs=0.02)


def test_the_limit_stays_where_it_is_when_nobody_comes_and_within_its_bounds(monkeypatch):
    ticks = iter(range(1, 1000))
    monkeypatch.setattr("time.monotonic", lambda: next(ticks))
    house = door(most=4)
    for wave in range(20):
        house.learn(504, wave + 0.5)
    assert house.limit == 1
    house.learn(200, 0.0)
    assert house.limit == 1
    house.here[Stage.INSIDE] = 4
    for _ in range(100):
        house.learn(200, 0.0)
    assert house.limit == 4
