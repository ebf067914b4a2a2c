"""The worker's child: binds the emulated device before anything imports TVM, then answers calls."""

from __future__ import annotations

import importlib
import sys
import traceback
from multiprocessing.connection import Connection

from tests.cuda_emulation import device
from tests.cuda_emulation.worker import EmulationError


def serve(connection: Connection) -> None:
    """Answer (function, arguments) with ("ok", result) or ("error", text) until the parent is gone."""
    device.install()
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        module, _, name = function.partition(":")
        try:
            answer = ("ok", getattr(importlib.import_module(module), name)(*arguments))
        except EmulationError as error:
            answer = ("error", str(error))
        except (
            Exception
        ):  # a fault of the emulation itself: the parent raises it with all that is known
            answer = ("error", traceback.format_exc())
        connection.send(answer)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
