"""Too much, too slow, or stuck: what is refused, what is still answered, and who notices."""

import asyncio
import os
import signal
import threading

import numpy as np
import pytest
from PIL import Image

from service.http.door import LOWERED
from service.imaging.decoders import MAX_LARGE, MAX_WORKERS


class Gate:
    """Wraps the app's encode function: batches wait until the test opens it."""

    def __init__(self, app):
        self.batcher = app.state.batcher
        self._encode = self.batcher._encode
        self.batcher._encode = self
        self.started, self.opened = threading.Event(), threading.Event()

    def __call__(self, images):
        self.started.set()
        assert self.opened.wait(60)
        return self._encode(images)

    async def until_queued(self, images):
        async with asyncio.timeout(60):
            while self.batcher.queued < images:  # noqa: ASYNC110 - the batcher has no event to wait for
                await asyncio.sleep(0.001)


def send(http, data, **form):
    return http.post("/localize", files={"image": ("photo.jpg", data)}, data=form)


async def test_the_door_refuses_before_a_byte_is_read(start, tile_request, photo, problem_of):
    async def body():
        pytest.fail("the body was read")
        yield b""

    async with start(max_in_flight=1) as http:
        await http.post("/gallery", **tile_request(1))
        gate = Gate(http.app)
        inside = asyncio.create_task(send(http, photo(1)))
        await asyncio.to_thread(gate.started.wait, 60)
        refused = await http.post("/localize", content=body())
        assert problem_of(refused, "overloaded", 429)["limit"] == 1
        assert refused.headers["retry-after"] == "1"
        metrics = (await http.get("/metrics")).text
        assert "aerofix_in_flight_requests 1.0" in metrics
        assert (await http.get("/readyz")).status_code == 200
        gate.opened.set()
        assert (await inside).status_code == 200
        assert (await send(http, photo(1))).status_code == 200


async def test_a_full_queue_refuses(start, tile_request, photo, problem_of):
    async with start(max_queue=1, max_batch=1) as http:
        await http.post("/gallery", **tile_request(1))
        gate = Gate(http.app)
        running = asyncio.create_task(send(http, photo(1)))
        await asyncio.to_thread(gate.started.wait, 60)
        waiting = asyncio.create_task(send(http, photo(1)))
        await gate.until_queued(1)
        refused = await send(http, photo(1))
        assert problem_of(refused, "overloaded", 429)["limit"] == 1
        assert refused.headers["retry-after"] == "1"
        problem_of(await http.post("/gallery", **tile_request(2)), "overloaded", 429)
        gate.opened.set()
        assert [response.status_code for response in await asyncio.gather(running, waiting)] == [200, 200]


async def test_a_deadline_in_the_queue(start, tile_request, photo, problem_of):
    async with start() as http:
        await http.post("/gallery", **tile_request(1))
        gate = Gate(http.app)
        localizer = http.app.state.localizer
        object.__setattr__(localizer, "settings", localizer.settings.model_copy(update={"deadline_s": 0.01}))
        problem_of(await send(http, photo(1)), "deadline-exceeded", 504)
        gate.opened.set()


async def test_a_body_that_does_not_come(start, problem_of):
    async def body():
        yield b"--x\r\n"
        await asyncio.Event().wait()

    async with start(body_timeout_s=0.01) as http:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        problem = problem_of(await http.post("/localize", content=body(), headers=headers), "body-too-slow", 408)
        assert problem["actual"] == 5
        assert http.app.state.door.empty


async def test_a_slow_decode_is_also_under_the_deadline(start, tile_request, photo, problem_of, monkeypatch):
    opened = threading.Event()
    monkeypatch.setattr("service.localization.pipeline.open_photo", lambda *args: opened.wait(60))
    async with start(deadline_s=0.01) as http:
        problem_of(await send(http, photo(1)), "deadline-exceeded", 504)
        opened.set()


async def test_decodes_that_never_end_hold_up_nobody_after_their_deadline(start, tile_request, photo, problem_of):
    async with start() as http:
        decoders, localizer = http.app.state.tile_maker.decoders, http.app.state.localizer
        await http.post("/gallery", **tile_request(1))
        count = len(decoders.pids) + MAX_WORKERS
        await asyncio.gather(*(send(http, photo(1)) for _ in range(count)))
        for pid in decoders.pids:
            os.kill(pid, signal.SIGSTOP)
        patient = localizer.settings
        object.__setattr__(localizer, "settings", patient.model_copy(update={"deadline_s": 0.1}))
        late = await asyncio.gather(*(send(http, photo(1)) for _ in range(count)))
        object.__setattr__(localizer, "settings", patient)
        assert {answer.status_code for answer in late} == {504}
        assert (await send(http, photo(1))).json()["status"] == "located"


async def test_several_images_share_one_deadline(start, photo, monkeypatch):
    begun = []

    async def hangs(self, data, *args, **kwargs):
        await asyncio.sleep(0)  # those whose time is over when they begin get no further
        begun.append(data)
        await asyncio.Event().wait()

    monkeypatch.setattr("service.localization.pipeline.PhotoLocalizer.localize", hangs)
    async with start(deadline_s=0.01, max_batch=2) as http:
        response = await http.post("/localize", files=[("image", ("p.jpg", photo(1)))] * 12)
        problems = [result["problem"]["type"] for result in response.json()["results"]]
    assert (response.status_code, problems) == (200, ["/problems/deadline-exceeded"] * 12)
    assert len(begun) == 2  # a batch; the others would have had a deadline of their own after it
    assert http.app.state.door.limit == pytest.approx(64 * LOWERED)  # as if the whole answer had been late


@pytest.fixture
def large(monkeypatch, ground, encode_image):
    """A picture that counts as large here."""
    monkeypatch.setattr("service.imaging.decoders.ORDINARY_BYTES", 10**6)
    return encode_image(ground(1, 400, 400))


async def test_large_images_hold_up_nobody_else(start, tile_request, photo, large, problem_of):
    async with start() as http:
        await http.post("/gallery", **tile_request(1))
        assert (await send(http, large)).json()["status"] == "located"
        held = http.app.state.tile_maker.decoders.pids[-1]
        os.kill(held, signal.SIGSTOP)
        inside = [asyncio.create_task(send(http, large)) for _ in range(MAX_LARGE + 1)]
        refused, _ = await asyncio.wait(inside, return_when=asyncio.FIRST_COMPLETED)
        answer = refused.pop().result()
        assert problem_of(answer, "overloaded", 429)["limit"] == MAX_LARGE
        assert answer.headers["retry-after"] == "1"
        good = await asyncio.gather(*(send(http, photo(1)) for _ in range(20)))
        assert {each.status_code for each in good} == {200}
        assert (await http.post("/gallery", **tile_request(2))).json()["added"] == 1
        os.kill(held, signal.SIGCONT)
        answers = await asyncio.gather(*inside)
        assert sorted(each.status_code for each in answers) == [200] * MAX_LARGE + [429]


async def test_large_images_of_one_request_wait_for_each_other(start, tile_request, large):
    count = MAX_LARGE + 2
    async with start() as http:
        await http.post("/gallery", **tile_request(1))
        results = (await http.post("/localize", files=[("image", ("p.png", large))] * count)).json()["results"]
        assert [result.get("status") for result in results] == ["located"] * count


async def test_large_tiles_wait_for_each_other(start, tile_request, ground, encode_image, large):
    async with start() as http:
        count = MAX_LARGE + 2
        form = tile_request(*range(count))
        form["files"] = [("image", (f"{i}.png", encode_image(ground(i, 400, 400)))) for i in range(count)]
        assert (await http.post("/gallery", **form)).json()["added"] == count


async def stuck(http, photo):
    """Let the encoder hang in a batch, and count as stuck at once."""
    gate = Gate(http.app)
    http.app.state.batcher._stuck_after_s = 0.0
    task = asyncio.create_task(send(http, photo(1)))
    await asyncio.to_thread(gate.started.wait, 60)
    return gate, task


async def test_a_stuck_encoder_is_not_ready_then_not_alive_and_may_recover(start, tile_request, photo, problem_of):
    async with start(restart_after_s=0.0) as http:
        await http.post("/gallery", **tile_request(1))
        gate, task = await stuck(http, photo)
        problem_of(await send(http, photo(1)), "not-ready", 503)
        assert "batcher" in problem_of(await http.get("/readyz"), "not-ready", 503)["detail"]
        assert "restart" in problem_of(await http.get("/livez"), "not-ready", 503)["detail"]
        gate.opened.set()
        assert (await task).status_code == 200
        assert (await http.get("/livez")).status_code == 200
        assert (await http.get("/readyz")).status_code == 200


async def test_a_stuck_encoder_is_alive_until_the_stated_time(start, photo, problem_of):
    async with start(restart_after_s=600) as http:
        gate, task = await stuck(http, photo)
        problem_of(await http.get("/readyz"), "not-ready", 503)
        assert (await http.get("/livez")).status_code == 200
        gate.opened.set()
        await task


async def test_the_encoder_is_stuck_when_nobody_can_be_waiting_any_more(start):
    async with start(deadline_s=7.0) as http:
        assert http.app.state.batcher._stuck_after_s == 7.0


class Dead(BaseException):
    pass


async def test_a_dead_encoder_is_not_alive_after_the_stated_time(start, photo, problem_of):
    async with start(restart_after_s=0.0) as http:

        def die(images):
            raise Dead

        http.app.state.batcher._encode = die
        problem_of(await send(http, photo(1)), "not-ready", 503)
        problem_of(await http.get("/readyz"), "not-ready", 503)
        problem_of(await http.get("/livez"), "not-ready", 503)


async def test_poison_costs_nobody_else_anything(start, tile_request, photo, encode_image, problem_of):
    black = encode_image(Image.new("RGB", (64, 64)))
    poison = {
        "1x1": encode_image(Image.new("RGB", (1, 1))),
        "1x30000": encode_image(Image.new("RGB", (1, 30_000))),
        "30000x1": encode_image(Image.new("RGB", (30_000, 1))),
        "cut off": photo(1)[:300],
        "no image": b"\x00" * 1000,
        "NaN-making": black,
    }
    async with start() as http:
        await http.post("/gallery", **tile_request(1, 2))
        encode = http.app.state.batcher._encode

        def nan_for_black(images):
            features = encode(images)
            features.embedding[images.max(axis=(1, 2, 3)) == 0] = np.nan
            return features

        http.app.state.batcher._encode = nan_for_black
        bodies = [*poison.values(), photo(1), photo(2)] * 5
        answers = await asyncio.gather(*(send(http, body) for body in bodies))
        expected = [422, 422, 422, 422, 415, 422, 200, 200] * 5
        assert [answer.status_code for answer in answers] == expected
        problem_of(answers[5], "embedding-failed", 422)
        for column in (1, 2):
            good = answers[5 + column].json()
            assert good["candidates"][0]["tile_id"] == f"map/{column}"
        assert (await http.get("/readyz")).status_code == 200


async def test_an_image_that_makes_inference_fail_costs_nobody_else_anything(start, tile_request, photo, encode_image):
    black = encode_image(Image.new("RGB", (64, 64)))
    async with start() as http:
        await http.post("/gallery", **tile_request(1))
        encode = http.app.state.batcher._encode

        def fails_for_black(images):
            if (images.max(axis=(1, 2, 3)) == 0).any():
                raise RuntimeError("CUDNN_STATUS_EXECUTION_FAILED")
            return encode(images)

        http.app.state.batcher._encode = fails_for_black
        answers = await asyncio.gather(*(send(http, body) for body in [photo(1), black, photo(1)] * 4))
        assert [answer.status_code for answer in answers] == [200, 500, 200] * 4
        assert "CUDNN" not in answers[1].text
