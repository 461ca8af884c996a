import asyncio
import threading

import numpy as np
import pytest

from service.encoder.batcher import Batcher
from service.encoder.session import Features
from service.errors import DeadlineExceeded, EmbeddingError, NotReady, Overloaded
from service.telemetry import RequestRecord, current_request

POISON, NAN, DEATH = 250, 251, 252
LONG = 60.0  # seconds; no test waits that long


class Death(BaseException):
    """Not an Exception: what nothing on the way may catch."""


class FakeEncoder:
    """Embeds an image of value v to cos v, sin v; the first batch waits until the test opens the gate."""

    def __init__(self):
        self.batches = []
        self.started = threading.Event()
        self.gate = threading.Event()

    def __call__(self, images):
        values = images[:, 0, 0, 0]
        self.batches.append(values.tolist())
        self.started.set()
        assert self.gate.wait(LONG)
        if POISON in values:
            raise RuntimeError("poison")
        if DEATH in values:
            raise Death
        embeddings = np.stack([np.cos(values * 0.01), np.sin(values * 0.01)], axis=1).astype(np.float32)
        embeddings[values == NAN] = np.nan
        return Features(embeddings)


def image(value):
    return np.full((2, 2, 3), value, np.uint8)


@pytest.fixture
def encoder():
    fake = FakeEncoder()
    yield fake
    fake.gate.set()


@pytest.fixture
async def batcher(encoder):
    batcher = Batcher(encoder, max_batch=4, max_queue=6)
    batcher.start()
    yield batcher
    encoder.gate.set()
    await batcher.close()


async def busy(batcher, encoder):
    """Occupy the encoder with an image of value 0."""
    task = asyncio.create_task(batcher.encode(image(0), LONG))
    await asyncio.to_thread(encoder.started.wait, LONG)
    return task


async def enqueue(batcher, *values, deadline_s=LONG):
    """Queue images, without waiting for them, in order."""
    tasks = [asyncio.create_task(batcher.encode(image(value), deadline_s)) for value in values]
    await asyncio.sleep(0)
    return tasks


async def idle(batcher):
    """Wait until the encoder's thread waits for images; the last batch is answered a moment before."""
    async with asyncio.timeout(LONG):
        while not batcher._changed._waiters:  # noqa: ASYNC110 - the batcher has no event to wait for
            await asyncio.sleep(0.001)


async def test_an_idle_encoder_starts_at_once_and_a_busy_one_gathers_the_largest_batch(batcher, encoder):
    first = await busy(batcher, encoder)
    rest = await enqueue(batcher, 1, 2, 3, 4, 5)
    assert batcher.queued == 5
    encoder.gate.set()
    answers = await asyncio.gather(first, *rest)
    assert encoder.batches == [[0], [1, 2, 3, 4], [5]]
    for value, answer in enumerate(answers):
        np.testing.assert_allclose(answer.embedding, [np.cos(value * 0.01), np.sin(value * 0.01)], rtol=1e-5)
        assert answer.queue_ms >= 0
        assert answer.encode_ms > 0


async def in_background(batcher, *values):
    """Queue images without a deadline, in order."""
    return await enqueue(batcher, *values, deadline_s=None)


async def test_images_in_the_background_run_when_no_other_waits(batcher, encoder):
    first = await busy(batcher, encoder)
    tiles = await in_background(batcher, 11, 12, 13, 14, 15)
    photos = await enqueue(batcher, 1, 2)
    assert batcher.queued == 7
    encoder.gate.set()
    answers = await asyncio.gather(first, *tiles, *photos)
    assert encoder.batches == [[0], [1, 2], [11, 12, 13, 14], [15]]
    np.testing.assert_allclose(answers[3].embedding, [np.cos(0.13), np.sin(0.13)], rtol=1e-5)
    assert answers[3].queue_ms >= 0


async def test_the_two_queues_are_full_each_by_itself(batcher, encoder):
    first = await busy(batcher, encoder)
    tiles = await in_background(batcher, *range(11, 17))
    with pytest.raises(Overloaded):
        await batcher.encode(image(17), None)
    photo = await enqueue(batcher, 1)
    encoder.gate.set()
    await asyncio.gather(first, *tiles, *photo)
    assert encoder.batches[1] == [1]


async def test_cancelled_images_in_the_background_are_never_encoded(batcher, encoder):
    first = await busy(batcher, encoder)
    cancelled, kept = await in_background(batcher, 11, 12)
    cancelled.cancel()
    await asyncio.sleep(0)
    encoder.gate.set()
    await asyncio.gather(first, kept)
    assert encoder.batches == [[0], [12]]


async def test_images_in_the_background_do_not_wait_for_a_stuck_encoder(encoder):
    batcher = Batcher(encoder, max_batch=1, max_queue=6, stuck_after_s=0.05)
    batcher.start()
    tasks = [*await in_background(batcher, 0, 11)]
    await asyncio.to_thread(encoder.started.wait, LONG)
    for answer in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(answer, NotReady)
    encoder.gate.set()
    await batcher.close()
    assert encoder.batches == [[0]]


async def test_a_full_queue_refuses(batcher, encoder):
    first = await busy(batcher, encoder)
    rest = await enqueue(batcher, *range(1, 7))
    with pytest.raises(Overloaded) as caught:
        await batcher.encode(image(7), LONG)
    assert caught.value.numbers == {"limit": 6, "retry_after_s": 1}
    encoder.gate.set()
    assert len(await asyncio.gather(first, *rest)) == 7


async def test_expired_and_cancelled_images_are_never_encoded(batcher, encoder):
    first = await busy(batcher, encoder)
    expired, cancelled, kept = *await enqueue(batcher, 1, deadline_s=0.0), *await enqueue(batcher, 2, 3)
    with pytest.raises(DeadlineExceeded):
        await expired
    cancelled.cancel()
    await asyncio.sleep(0)
    encoder.gate.set()
    await asyncio.gather(first, kept)
    assert encoder.batches == [[0], [3]]


async def test_a_deadline_in_the_past_is_answered_at_once(batcher, encoder):
    with pytest.raises(DeadlineExceeded):
        await batcher.encode(image(1), -3.0)
    encoder.gate.set()
    assert (await batcher.encode(image(2), LONG)).embedding.shape == (2,)


async def test_a_deadline_also_ends_the_wait_for_a_running_batch(batcher, encoder):
    task = asyncio.create_task(batcher.encode(image(0), 0.01))
    with pytest.raises(DeadlineExceeded):
        await task
    encoder.gate.set()
    assert (await batcher.encode(image(1), LONG)).embedding.shape == (2,)


async def test_a_poisoned_image_fails_alone(batcher, encoder):
    first = await busy(batcher, encoder)
    rest = await enqueue(batcher, 1, POISON, 3)
    encoder.gate.set()
    good, poisoned, also_good = await asyncio.gather(*rest, return_exceptions=True)
    assert isinstance(poisoned, RuntimeError)
    assert good.embedding[0] == pytest.approx(np.cos(0.01))
    assert also_good.embedding[0] == pytest.approx(np.cos(0.03))
    assert encoder.batches == [[0], [1, POISON, 3], [1], [POISON], [3]]
    await first
    assert batcher.healthy


async def test_an_image_without_an_embedding_fails_alone(batcher, encoder):
    encoder.gate.set()
    tasks = await enqueue(batcher, 1, NAN)
    good, bad = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(bad, EmbeddingError)
    assert np.isfinite(good.embedding).all()


async def test_each_image_gets_its_own_local_descriptors():
    def encode(images):
        values = images[:, 0, 0, 0].astype(np.float32)
        values[values == NAN] = np.nan
        return Features(np.ones((len(images), 1), np.float32), np.broadcast_to(values, (3, 4, 2, len(images))).T)

    batcher = Batcher(encode, max_batch=4, max_queue=6)
    batcher.start()
    one, broken, two = await asyncio.gather(*await enqueue(batcher, 1, NAN, 2), return_exceptions=True)
    await batcher.close()
    assert isinstance(broken, EmbeddingError)
    np.testing.assert_array_equal(one.local, np.full((2, 4, 3), 1))
    np.testing.assert_array_equal(two.local, np.full((2, 4, 3), 2))


async def test_images_of_another_size_fail_and_the_worker_lives(batcher, encoder):
    first = await busy(batcher, encoder)
    rest = await enqueue(batcher, 1)
    odd = asyncio.create_task(batcher.encode(np.zeros((3, 3, 3), np.uint8), LONG))
    await asyncio.sleep(0)
    encoder.gate.set()
    await asyncio.gather(first, *rest, odd)
    assert batcher.healthy


async def test_the_death_of_the_worker_is_seen_by_all(batcher, encoder):
    first = await busy(batcher, encoder)
    rest = [*await enqueue(batcher, DEATH, 1, 2, 3, 4), *await in_background(batcher, 11)]
    encoder.gate.set()
    await first
    for answer in await asyncio.gather(*rest, return_exceptions=True):
        assert isinstance(answer, NotReady)
    assert not batcher.healthy
    with pytest.raises(NotReady):
        await batcher.encode(image(5), LONG)


async def test_a_stuck_encoder_is_not_healthy_until_it_goes_on(encoder):
    batcher = Batcher(encoder, max_batch=4, max_queue=6, stuck_after_s=0.0)
    batcher.start()
    stuck = await busy(batcher, encoder)
    assert not batcher.healthy
    assert batcher.failing_s > 0
    with pytest.raises(NotReady):
        await batcher.encode(image(1), LONG)
    encoder.gate.set()
    await stuck
    await idle(batcher)
    assert batcher.healthy
    await batcher.close()


async def test_the_death_of_the_worker_is_dated(batcher, encoder):
    encoder.gate.set()
    assert batcher.failing_s == 0
    with pytest.raises(NotReady):
        await batcher.encode(image(DEATH), LONG)
    assert batcher.failing_s > 0


@pytest.mark.parametrize("value", [POISON, NAN])
async def test_it_is_known_since_when_nothing_but_errors_comes_out(batcher, encoder, value):
    encoder.gate.set()
    await batcher.encode(image(1), LONG)
    assert batcher.fails_since is None
    first = await asyncio.gather(*await enqueue(batcher, value), return_exceptions=True)
    since = batcher.fails_since
    second = await asyncio.gather(*await enqueue(batcher, value, value), return_exceptions=True)
    assert all(isinstance(answer, Exception) for answer in (*first, *second))
    assert since is not None
    assert batcher.fails_since == since
    assert batcher.healthy  # the images may be to blame
    await asyncio.gather(*await enqueue(batcher, 1, value), return_exceptions=True)
    await batcher.encode(image(2), LONG)
    assert batcher.fails_since is None


async def test_a_good_image_in_a_batch_that_fails_is_a_success(batcher, encoder):
    first = await busy(batcher, encoder)
    rest = await enqueue(batcher, POISON, 1)
    encoder.gate.set()
    await asyncio.gather(first, *rest, return_exceptions=True)
    assert encoder.batches == [[0], [POISON, 1], [POISON], [1]]
    assert batcher.fails_since is None


async def test_those_who_watch_hear_of_every_batch_and_why_it_was_released(encoder):
    seen = []
    batcher = Batcher(encoder, max_batch=3, max_queue=20, on_batch=seen.append)
    batcher.start()
    first = await busy(batcher, encoder)
    rest = await enqueue(batcher, 1, 2, 3, 4, 5)
    encoder.gate.set()
    await asyncio.gather(first, *rest)
    await idle(batcher)
    encoder.gate.clear()
    encoder.started.clear()
    again = await busy(batcher, encoder)
    poisoned = await enqueue(batcher, POISON, 6)
    encoder.gate.set()
    await asyncio.gather(again, *poisoned, return_exceptions=True)
    await batcher.close()
    assert [(batch.size, batch.reason) for batch in seen] == [
        (1, "idle"),
        (3, "full"),
        (2, "gathered"),
        (1, "idle"),
        (1, "alone"),
    ]
    assert all(batch.seconds > 0 for batch in seen)


async def test_queue_and_encode_are_steps_of_the_request(batcher, encoder):
    encoder.gate.set()
    record = RequestRecord("id", "POST", 0.0)
    token = current_request.set(record)
    answer = await batcher.encode(image(1), LONG)
    current_request.reset(token)
    assert [step.name for step in record.steps] == ["queue", "encode"]
    queue, encode = record.steps
    assert queue.ended == encode.started
    assert (encode.ended - encode.started) * 1e3 == pytest.approx(answer.encode_ms)


async def test_closing_gives_up_on_a_stuck_encoder(encoder):
    batcher = Batcher(encoder, max_batch=1, max_queue=8)
    batcher.start()
    tasks = [await busy(batcher, encoder), *await enqueue(batcher, 1), *await in_background(batcher, 11)]
    await batcher.close(timeout_s=0.01)
    for answer in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(answer, NotReady)


async def test_closing_finishes_what_waits_and_refuses_the_rest(encoder):
    batcher = Batcher(encoder, max_batch=2, max_queue=8)
    batcher.start()
    first = await busy(batcher, encoder)
    rest = [*await in_background(batcher, 11), *await enqueue(batcher, 1, 2, 3)]
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    assert not batcher.healthy
    with pytest.raises(NotReady):
        await batcher.encode(image(9), LONG)
    encoder.gate.set()
    await closing
    assert all(task.done() for task in (first, *rest))
    assert encoder.batches == [[0], [1, 2], [3], [11]]


async def test_a_batcher_that_never_started_is_not_healthy(encoder):
    batcher = Batcher(encoder, 1, 1)
    assert not batcher.healthy
    await batcher.close()
