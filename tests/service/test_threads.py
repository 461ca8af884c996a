import asyncio
import os
import threading

import pytest

from service.threads import Shared, Threads, cores


@pytest.mark.parametrize(
    ("quota", "expected"), [("50000 100000", 1), ("100000 100000", 1), ("max 100000", None), ("nonsense", None)]
)
def test_a_container_may_have_fewer_cores_than_its_machine(tmp_path, quota, expected):
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert cores(file) == (expected or len(os.sched_getaffinity(0)))
    assert cores(tmp_path / "none") == len(os.sched_getaffinity(0))


async def test_no_more_runs_at_once_than_there_are_threads_and_first_come_is_first_served():
    threads, gate, begun = Threads("few", 2), threading.Event(), []

    def work(number):
        begun.append(number)
        gate.wait(30)
        return number

    tasks = [asyncio.create_task(threads.run(work, number)) for number in range(6)]
    async with asyncio.timeout(30):
        while len(begun) < 2:  # noqa: ASYNC110 - the threads have no event of the loop
            await asyncio.sleep(0.001)
    assert sorted(begun) == [0, 1]
    tasks[2].cancel()
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(begun) == [0, 1, 3, 4, 5]
    threads.close()


class Readable:
    """Says what is done with it, and whether it was closed while it was read."""

    def __init__(self):
        self.gate, self.begun, self.is_read, self.seen = threading.Event(), threading.Event(), False, []

    def read(self):
        self.is_read = True
        self.begun.set()
        self.gate.wait(30)
        self.is_read = False
        self.seen.append("read")

    def close(self):
        self.seen.append("closed while read" if self.is_read else "closed")


async def test_what_is_shared_is_closed_when_its_reader_has_ended_although_nobody_waits_for_that_one():
    thing = Readable()
    shared = Shared(thing)
    reader = asyncio.create_task(shared.use(Readable.read))
    await asyncio.to_thread(thing.begun.wait, 30)
    reader.cancel()
    await asyncio.wait([reader])
    late = asyncio.create_task(shared.use(Readable.read))
    closing = threading.Thread(target=shared.close)
    closing.start()
    assert thing.seen == []
    thing.gate.set()
    await asyncio.to_thread(closing.join, 30)
    await asyncio.wait([late])
    assert thing.seen in (["read", "closed"], ["read", "read", "closed"])  # whoever was first at the door
    with pytest.raises(ValueError, match="closed"):
        await shared.use(Readable.read)
