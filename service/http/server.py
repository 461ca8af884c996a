"""The server: it answers while the service loads, and on SIGTERM lets go gracefully."""

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import NotReady
from service.http.access import SecurityHeaders
from service.http.connection import check_all
from service.http.door import Door
from service.http.middleware import RequestContext
from service.http.problems import problem_response
from service.routes.schemas import Liveness

FLUSH_S = 3  # seconds for the last answers to reach slow clients
STARTING_S = 5  # seconds until it is worth asking again: a model and some ten thousand tiles


class Front:
    """The application that the server runs: it loads the service, says meanwhile that it does, and then passes all on.

    Attributes:
        door: the service's, once it is loaded.
        failure: why it cannot be loaded; the server then ends.

    Args:
        load: makes the service; called in a thread.
        on_ready: called when requests reach the service.
    """

    def __init__(self, load: Callable[[], FastAPI], on_ready: Callable[[], None]) -> None:
        self.door: Door | None = None
        self.failure: Exception | None = None
        self._load, self._on_ready = load, on_ready
        self._lifespan = Starlette(lifespan=self._live)
        self._app: ASGIApp = SecurityHeaders(RequestContext(_starting))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        await (self._lifespan if scope["type"] == "lifespan" else self._app)(scope, receive, send)

    @asynccontextmanager
    async def _live(self, _: Starlette) -> AsyncIterator[None]:
        stop = asyncio.Event()
        service = asyncio.create_task(self._run(stop), name="service")
        yield
        stop.set()
        if self.door is None:
            service.cancel()
        await asyncio.wait([service])

    async def _run(self, stop: asyncio.Event) -> None:
        try:
            app = await _in_thread(self._load)
            gc.collect()
            gc.freeze()  # what is loaded stays; looking through it for garbage would stop the loop now and then
            async with app.router.lifespan_context(app):
                self.door, self._app = app.state.door, app
                self._on_ready()
                await stop.wait()
        except Exception as error:
            self.failure = error


async def _starting(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request before there is a service."""
    if scope["path"] == "/livez":
        response = JSONResponse(Liveness().model_dump())
    else:
        response = problem_response(NotReady("the service is starting; ask again soon.", retry_after_s=STARTING_S))
    await response(scope, receive, send)


async def _in_thread(load: Callable[[], FastAPI]) -> FastAPI:
    """Run ``load`` in a thread that keeps nobody from leaving, as one of the loop's own would."""
    loop = asyncio.get_running_loop()
    loaded: asyncio.Future[FastAPI] = loop.create_future()

    def tell(app: FastAPI | None, error: Exception | None) -> None:
        if loaded.done():
            return
        if error is not None:
            loaded.set_exception(error)
        elif app is not None:
            loaded.set_result(app)

    def work() -> None:
        app, failure = None, None
        try:
            app = load()
        except Exception as error:
            failure = error
        except BaseException as error:  # else those who wait would never hear of it
            failure = RuntimeError(f"loading ended with {error!r}")
        with suppress(RuntimeError):  # the loop has closed meanwhile
            loop.call_soon_threadsafe(tell, app, failure)

    threading.Thread(target=work, name="load", daemon=True).start()
    return await loaded


class DrainingServer(uvicorn.Server):
    """A uvicorn server that, told to stop, goes on refusing politely until every accepted request is answered.

    Plain uvicorn stops listening at once: whoever comes then gets no answer at all, not even that it is shutting down.
    A second signal ends the wait, and so does one before the service is loaded.

    Args:
        front: its door is closed on the first signal.
        drain_s: seconds to wait for the requests that are here.
    """

    def __init__(self, config: uvicorn.Config, front: Front, drain_s: float) -> None:
        super().__init__(config)
        config.timeout_graceful_shutdown = FLUSH_S
        self._front = front
        self._drain_s = drain_s
        self._told: tuple[int, FrameType | None] | None = None
        self._told_at = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Close the door on the first signal, stop on the second."""
        if self._told is not None or self._front.door is None:
            super().handle_exit(sig, frame)
            return
        self._front.door.closed = True
        self._told, self._told_at = (sig, frame), time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        """Stop once nobody is here, or the time is over, or loading has failed; uvicorn asks ten times a second.

        Once a second the connections are looked at, whose peers may be too slow.
        """
        if counter % 10 == 0:
            check_all(self.server_state.connections, asyncio.get_running_loop().time())
        if self._told is not None:
            empty = self._front.door is not None and self._front.door.empty
            late = time.monotonic() - self._told_at > self._drain_s
            if empty or late:
                super().handle_exit(*self._told)
        return await super().on_tick(counter) or self._front.failure is not None
