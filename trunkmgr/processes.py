"""What `up`, `web` and `runsip` share: the loop, signals, the web server, and Celery's two threads for `up`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Protocol

import uvicorn
from celery import beat
from celery.worker import state as celery_state
from django.conf import settings
from django.core.management import CommandError
from django.db import Error as DatabaseError

from trunkmgr.exceptions import TrunkmgrError

log = logging.getLogger("trunkmgr")

#: Seconds in which open pages may finish what they load when the server stops.
WEB_GRACE = 3
#: Seconds in which a thread of Celery shall end: its consumer looks once a second, its pool drains.
THREAD_GRACE = 6.0
WATCH = 2.0
#: New objects until a young round (about 2 ms), young rounds until a middle one, middle ones until a full one.  Middle
#: rounds are rare, because what a call leaves is gone after 32 s: most of it is walked over once.
GC_THRESHOLDS = (20_000, 100, 10)


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run `main(stop)` in a loop of its own; SIGTERM or Ctrl-C sets `stop`, and a second one changes nothing.

    What keeps a start from succeeding becomes a CommandError: one line with cause and cure.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        loop = runner.get_loop()
        stop = asyncio.Event()

        def on_signal(number: int, frame: object) -> None:
            # Stays in place until the process ends: a second signal must not cut the drain that the first began.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(stop.set)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, on_signal)
        try:
            runner.run(main(stop))
        except (TrunkmgrError, OSError) as error:
            raise CommandError(_one_line(error)) from error
        except DatabaseError as error:
            raise CommandError(database_problem(error)) from error


def database_problem(error: DatabaseError) -> str:
    """One line of cause and cure for a database that cannot be used."""
    database = settings.DATABASES["default"]
    if database["ENGINE"].endswith("sqlite3"):
        return (
            f"The database {database['NAME']} cannot be used: {_one_line(error)}. "
            "Check that this user may write it and its folder, and that `manage.py migrate` was run."
        )
    return (
        f"The database {database['NAME']} on {database['HOST'] or 'this machine'} cannot be used: {_one_line(error)}. "
        "Check DATABASE_URL, that the server runs, and that `manage.py migrate` was run."
    )


def _one_line(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()).rstrip(".")


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def settle() -> None:
    """Take what a start has made out of the garbage collector's rounds.

    Its 80,000 objects stay for good, and each full round over them holds all calls up for 27 ms (measured; 0 after).
    What calls leave is freed by reference counting, but lives for 32 s: with Python's own thresholds the collector
    walks over all of it again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


class WebServer(uvicorn.Server):
    """uvicorn inside our process: we own sockets, signals and the log."""

    def __init__(self) -> None:
        env = settings.TRUNKMGR
        # Bound before anything else starts, so that a taken port is told at once.
        self.socket = _bound(env.http_host, env.http_port)
        host, port = self.socket.getsockname()[:2]
        self.url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
        from trunkmgr.asgi import application

        super().__init__(uvicorn.Config(
            application, lifespan="off", log_config=None, access_log=False, ws="websockets-sansio",
            timeout_graceful_shutdown=WEB_GRACE, forwarded_allow_ips=list(env.proxies),
        ))
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn would raise SIGTERM again after serve(), and our own clean-up would never run.
        yield

    async def start(self) -> None:
        self._task = asyncio.create_task(self.serve(sockets=[self.socket]), name="web")
        while not self.started:
            if self._task.done():
                self._task.result()
                raise OSError("The web server ended while it started; its log tells why.")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self.should_exit = True
        if self._task is not None:
            await self._task
        self.socket.close()


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # Another process may have bound it the same way; only listening tells.
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise OSError(
            f"The web address {host}:{port} cannot be used: {error.strerror}. "
            "Stop the program that has it, or set TRUNKMGR_HTTP to another HOST:PORT."
        ) from error
    listener.setblocking(False)
    return listener


class Part(Protocol):
    """A part of the embedded set-up that lives in a thread of its own."""

    name: str

    @property
    def alive(self) -> bool: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


#: The parts that shall run in this process; /healthz looks at them.
PARTS: list[Part] = []


class CeleryThread:
    """The Celery worker of the embedded set-up.

    `WorkController` and not `celery.apps.worker.Worker`: that one sets signal handlers, which only a main thread may.
    """

    name = "celery worker"

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self.ready = threading.Event()

    def start(self) -> None:
        # An earlier worker of this process leaves its stop flag behind.
        celery_state.should_stop = None
        self.ready.clear()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        from trunkmgr.celery import app

        app.set_current()
        app.loader.init_worker()
        app.WorkController(
            pool="threads", concurrency=2, hostname="embedded@localhost", quiet=True, without_gossip=True,
            without_mingle=True, without_heartbeat=True, ready_callback=lambda consumer: self.ready.set(),
        ).start()

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        celery_state.should_stop = 0
        if self._thread is not None:
            self._thread.join(THREAD_GRACE)


class BeatThread:
    """Celery beat of the embedded set-up.  Without `thread=True` it would fork, and nobody would hear its tasks."""

    name = "celery beat"

    def __init__(self) -> None:
        self._service: Any = None

    def start(self) -> None:
        from trunkmgr.celery import app

        self._service = beat.EmbeddedService(app, thread=True, scheduler_cls=app.conf.beat_scheduler)
        self._service.start()

    @property
    def alive(self) -> bool:
        return self._service is not None and self._service.is_alive()

    def stop(self) -> None:
        if self.alive:
            self._service.service.stop(wait=False)
            self._service.join(THREAD_GRACE)


async def watch() -> None:
    """Start a part again that ended by itself; nobody else would notice until registrations are late."""
    while True:
        await asyncio.sleep(WATCH)
        for part in PARTS:
            if not part.alive:
                log.error("The thread %s ended by itself and is started again.", part.name)
                await asyncio.to_thread(part.start)
