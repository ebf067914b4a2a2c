"""PEERS: the engines that convc is compared with. A new one is one file and one row here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.peers import mnn_peer, ncnn_peer, onnxruntime_peer, openvino_peer
from benchmarks.peers.peer import Array, Infer, Peer, PeerError, PeerMissingError
from convc.errors import unknown_name

__all__ = ["PEERS", "Array", "Infer", "Peer", "PeerError", "PeerMissingError", "peers_named"]

PEERS: Final[tuple[Peer, ...]] = (
    onnxruntime_peer.ROW,
    openvino_peer.ROW,
    mnn_peer.ROW,
    ncnn_peer.ROW,
)


def peers_named(names: Sequence[str]) -> tuple[Peer, ...]:
    """Return the rows, each once, in the order of `names`.

    Raises:
        UnknownNameError: for a name that is in no row.

    Example:
        >>> [peer.name for peer in peers_named(["mnn", "onnxruntime", "mnn"])]
        ['mnn', 'onnxruntime']
    """
    rows = {peer.name: peer for peer in PEERS}
    for name in names:
        if name not in rows:
            raise unknown_name("peer", name, rows)
    return tuple(rows[name] for name in dict.fromkeys(names))
