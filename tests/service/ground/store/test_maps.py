"""Maps in a gallery file: their numbers, and the bytes that they take."""

import numpy as np
import pytest

from service.ground.maps import NewMap
from service.ground.store.imports import Step, new_import_id
from service.ground.store.store import Store
from service.ground.windows import key_of

ZOOM = 17


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "g.gallery")
    yield store
    store.close()


@pytest.fixture
def add(store):
    """``add(name)``: an empty map of this name."""

    def make(name):
        import_id = new_import_id()
        store.imports.create(f"{name}.tif", {"map": name}, 100, import_id)
        made = store.maps.create(
            NewMap(name, f"{name}.tif", (1, 10, 2, 11), 0.5, None, (ZOOM,), True, 15, ZOOM), True, import_id
        )
        store.imports.begin(import_id, 100)
        return made, Step(import_id, 1)

    return make


def test_the_number_of_a_deleted_map_is_not_given_to_the_next(store, add):
    """A search that began before would take the one for the other."""
    town, _ = add("town")
    store.maps.hide(town.number)
    store.maps.delete(town.number)
    assert add("port")[0].number == town.number + 1


def test_numbers_come_back_when_all_were_given(store, add, monkeypatch):
    monkeypatch.setattr("service.ground.store.maps.MAX_MAP", 3)
    numbers = []
    for name in "abcde":
        made, _ = add(name)
        numbers.append(made.number)
        if name != "b":
            store.maps.hide(made.number)
            store.maps.delete(made.number)
    assert numbers == [1, 2, 3, 1, 3]


def test_the_bytes_of_a_map_are_counted_as_they_are_written(store, add):
    town, step = add("town")
    port, other = add("port")
    store.maps.put_tiles({key_of(town.number, ZOOM, 1, x): b"webp" * (x + 1) for x in range(5)}, step)
    store.maps.put_tiles({key_of(town.number, ZOOM, 1, x): b"smaller" for x in range(3, 8)}, step)
    store.maps.put_tiles({key_of(port.number, ZOOM, 1, 1): b"webp"}, other)
    ids = np.array([key_of(town.number, ZOOM, 2, x) for x in range(4)])
    for value in (1, 2):
        blocks = {int(key): np.full((2, 4, 4), value, np.int8) for key in ids}
        store.maps.put_windows(town.number, ids, np.zeros((4, 8), np.float16), blocks, step)
    blocks = [store.file.one("SELECT length(local) FROM blocks WHERE id = ?", int(key)) for key in ids]
    assert store.maps.bytes_of(town.number) == 4 + 8 + 12 + 5 * 7 + sum(blocks)
    assert store.maps.bytes_of(port.number) == 4
    store.maps.hide(town.number)
    store.maps.delete(town.number)
    assert store.maps.bytes_of(town.number) == 0
