"""`convc rpc-tracker` and `convc rpc-server`: other machines to tune on."""

from __future__ import annotations

from typing import Annotated

import typer

from convc.cli.render import Output

__all__ = ["rpc_server", "rpc_tracker"]

HostOption = Annotated[str, typer.Option("--host", help="Address to listen at. Any other than this machine's own lets everybody who reaches it run code here.")]  # fmt: skip


def rpc_tracker(
    host: HostOption = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="First port to try.")] = 9190,
) -> None:  # fmt: skip
    """Run a tracker: it knows the servers that tuning runs may use. Ends with Ctrl-C."""
    from convc.tuning.rpc import track, wait

    output = Output()
    _warn(output, host)
    with track(host, port) as (at, number):
        output.note(f"tracker at {at}:{number}; servers join with: convc rpc-server --tracker {at}:{number} --key NAME")  # fmt: skip
        wait()


def rpc_server(
    key: Annotated[str, typer.Option("--key", help="Name of this kind of machine; tuning asks for it.", show_default=False)],
    tracker: Annotated[str, typer.Option("--tracker", metavar="HOST:PORT", help="The tracker to register with.")] = "127.0.0.1:9190",
    host: HostOption = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="First port to try.")] = 9090,
) -> None:  # fmt: skip
    """Run a server on which tuning runs measure candidates. Ends with Ctrl-C."""
    from convc.tuning.rpc import Address, serve, wait

    output = Output()
    address = Address.parse(f"{tracker}/{key}")
    _warn(output, host)
    with serve(host, port, (address.host, address.port), key) as (at, number):
        output.note(f"server at {at}:{number}; tune with: convc tune MODEL --runner {address}")
        wait()


def _warn(output: Output, host: str) -> None:
    from convc.tuning.rpc import LOOPBACK

    if host not in (LOOPBACK, "localhost"):
        output.warn(
            f"whoever reaches {host} can upload machine code and run it as this user; there is no password. "
            "Do this only in a network that you trust."
        )
