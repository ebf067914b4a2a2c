"""More than one machine: TVM's RPC tracker and servers as they are, bound to this machine alone unless told otherwise.

Whoever reaches a server's port can upload and run machine code as its user, and nothing asks for a password: bind other addresses
only in a network where everybody may do that.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from convc.errors import ToolchainError, TuningError

__all__ = ["LOOPBACK", "Address", "connect", "serve", "servers", "track", "wait"]

LOOPBACK: Final = "127.0.0.1"
SESSION_SECONDS: Final = 600
_FORM = "rpc://HOST:PORT/KEY"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a tracker listens, and under which key its servers are.

    Raises:
        TuningError: from `parse`, if the text is no address.

    Example:
        >>> Address.parse("rpc://127.0.0.1:9190/epyc")
        Address(host='127.0.0.1', port=9190, key='epyc')
    """

    host: str
    port: int
    key: str

    @staticmethod
    def parse(text: str) -> Address:
        """Return the address in `rpc://HOST:PORT/KEY`."""
        found = re.fullmatch(r"(?:rpc://)?([^/:]+):(\d+)/([\w.+-]+)", text)
        if not found or not 0 < int(found[2]) < 65536:
            raise TuningError(f"runner must be 'local' or look like {_FORM}; got '{text}'.")
        return Address(found[1], int(found[2]), found[3])

    def __str__(self) -> str:
        return f"rpc://{self.host}:{self.port}/{self.key}"


def _rpc() -> Any:
    try:
        from tvm import rpc
        from tvm.rpc import server, tracker
    except ImportError as error:
        raise ToolchainError(
            f"TVM's RPC must have its packages; got {error}. Install them with `pip install 'convc[rpc]'`."
        ) from None
    return rpc, server, tracker


def connect(runner: str) -> Any:
    """Return a session with a free server of a tracker; the server ends it after `SESSION_SECONDS`, so that a hang costs no more.

    Raises:
        TuningError: if the tracker cannot be reached, or no server of the key is free in time.
    """
    address = Address.parse(runner)
    rpc, _, _ = _rpc()
    try:
        tracker = rpc.connect_tracker(address.host, address.port)
        return tracker.request(address.key, priority=0, session_timeout=SESSION_SECONDS)
    except (RuntimeError, OSError, ValueError, TypeError) as error:
        raise TuningError(
            f"runner must be a tracker with servers of key '{address.key}'; got none at {address} ({error}). "
            "Start them with `convc rpc-tracker` and `convc rpc-server`."
        ) from None


def servers(runner: str) -> int:
    """Return how many servers a tracker has under the address's key, free or not.

    Raises:
        TuningError: if the tracker cannot be reached.
    """
    address = Address.parse(runner)
    rpc, _, _ = _rpc()
    try:
        summary = rpc.connect_tracker(address.host, address.port).summary()
    except (RuntimeError, OSError, ValueError, TypeError) as error:
        raise TuningError(
            f"runner must be a tracker that answers; got none at {address} ({error}). Start one with `convc rpc-tracker`."
        ) from None
    keys = [entry.get("key", "") for entry in summary.get("server_info", ())]
    return sum(key.removeprefix("server:") == address.key for key in keys)


@contextmanager
def track(host: str, port: int) -> Iterator[tuple[str, int]]:
    """Run a tracker while the context lasts; gives the address it listens at."""
    _, _, tracker = _rpc()
    running = tracker.Tracker(host=host, port=port, port_end=port + 100, silent=True)
    try:
        yield host, running.port
    finally:
        running.terminate()


@contextmanager
def serve(host: str, port: int, tracker: tuple[str, int], key: str) -> Iterator[tuple[str, int]]:
    """Run a server registered with a tracker while the context lasts; gives the address it listens at."""
    _, server, _ = _rpc()
    running = server.Server(
        host=host, port=port, port_end=port + 100, tracker_addr=tracker, key=key, silent=True
    )
    try:
        yield host, running.port
    finally:
        running.terminate()


def wait() -> None:
    """Wait until interrupted."""
    while True:
        time.sleep(3600)
