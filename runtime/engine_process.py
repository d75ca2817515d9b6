"""The engine's process, on its end of a socketpair: `engine_child.py` starts it.

It reads its settings (`engine_settings.py`), loads, says Ready, and from then on turns Submit into Tokens (`wire.py`),
one StepDone a step; when idle, one without tokens each second as a sign of life.

It ends at once on Shutdown, or when the other end closes (so it never outlives its parent). On SIGTERM it ends when
no sequence is left: a service manager sends that to parent and child alike, and the parent drains. SIGINT is
ignored: a terminal sends it to both, and the parent decides.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING

from oi.runtime.channel import Channel, ChannelClosed
from oi.runtime.device.cuda.wake import wake
from oi.runtime.engine_settings import receive
from oi.runtime.errors import OiError, RequestError
from oi.runtime.messages import Abort, Failed, Fatal, Ready, Shutdown, StepDone, Submit

if TYPE_CHECKING:
    from oi.runtime.engine import Engine
    from oi.runtime.runner import Runner

__all__ = ["main", "ready", "serve"]

_SIGN_OF_LIFE_S = 1.0
_LAST_WORD_S = 5.0


def serve(channel: Channel, runner: Runner, drain: Event) -> None:
    """Say Ready and work until told to end. Raises ChannelClosed, WireError, or what a step raised."""
    from oi.runtime.engine import Engine  # here, for main's sake: nothing heavy loads before the GPU is being woken

    engine = Engine(runner)
    gc.freeze()  # what is there stays: collections need not go through it
    channel.send(ready(runner))
    said = monotonic()
    blocked: int | None = None
    """Where there is work, but no step until a copy has landed: the descriptor that tells."""
    while not (drain.is_set() and not engine.has_work):
        works = engine.has_work and blocked is None
        patience = 0.0 if works else said + _SIGN_OF_LIFE_S - monotonic()
        for message in channel.receive(max(0.0, patience), blocked):
            if isinstance(message, Shutdown):
                return
            _handle(message, engine, channel)
        done = engine.advance() if engine.has_work else None
        blocked = engine.landings if done is None and engine.has_work else None
        if done is not None:
            channel.send(done)
            said = monotonic()
        elif monotonic() >= said + _SIGN_OF_LIFE_S:
            engine.catch_up()
            channel.send(StepDone([], engine.stats()))
            said = monotonic()


def ready(runner: Runner) -> Ready:
    limits = runner.geometry
    return Ready(limits.max_model_len, limits.max_num_seqs, limits.vocab_size, limits.pages, limits.page_size)


def _handle(message: Submit | Abort, engine: Engine, channel: Channel) -> None:
    if isinstance(message, Abort):
        engine.abort(message.ids)
        return
    try:
        engine.submit(message)
    except RequestError as e:
        channel.send(Failed(message.id, str(e)))


def main(connection: socket.socket) -> int:
    """The exit status: 0 when told to end, or the parent is gone; 1 after Fatal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy multiplies nothing here, and loads twice as fast
    Thread(target=_load, daemon=True).start()  # while the parent finds out what to serve
    settings = receive(connection)
    if settings is None:
        return 0
    channel = Channel(connection)
    try:
        wake(Path(settings.artifact))
        from oi.runtime.step import open_runner  # the device's libraries load with it: a failure is told, not lost

        runner = open_runner(settings)
        drain = Event()
        signal.signal(signal.SIGTERM, lambda *_: drain.set())
        serve(channel, runner, drain)
    except ChannelClosed:
        return 0
    except Exception as e:
        if isinstance(e, OiError):
            message = str(e)
        else:
            traceback.print_exc()
            message = f"{type(e).__name__}: {e}"
        channel.send_last(Fatal(message), _LAST_WORD_S)
        return 1
    return 0


def _load() -> None:
    """What every engine imports; a failure comes again where it is imported in earnest."""
    with suppress(Exception):
        import_module("oi.runtime.step")
        import_module("oi.runtime.engine")
