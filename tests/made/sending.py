"""Imports over HTTP: sent, waited for, and held on the way."""

import asyncio


async def send(http, data, name="area.tif", **form):
    return await http.post("/gallery/imports", files={"file": (name, data)}, data=form)


async def until(http, location, *states):
    async with asyncio.timeout(60):
        while True:
            state = (await http.get(location)).json()
            if state["state"] in states:
                return state
            await asyncio.sleep(0.02)


async def finished(http, response):
    assert response.status_code == 202, response.text
    return await until(http, response.headers["location"], "done", "failed", "cancelled")


class Held:
    """Lets windows into the encoder only when it is released."""

    def __init__(self, http, monkeypatch):
        self.released, self.waiting = asyncio.Event(), asyncio.Event()
        encode = http.app.state.batcher.encode

        async def held(image, deadline_s, **options):
            if deadline_s is None:
                self.waiting.set()
                await self.released.wait()
            return await encode(image, deadline_s, **options)

        monkeypatch.setattr(http.app.state.batcher, "encode", held)

    async def reached(self):
        async with asyncio.timeout(30):
            await self.waiting.wait()
