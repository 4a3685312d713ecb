"""A weight-transfer socket of its own for each local cluster of a machine."""

from __future__ import annotations

import functools
import os
from types import ModuleType
from typing import Any

from recipe.cpu import CLUSTER_VARIABLE


def name_weight_socket_by_cluster(transfer: ModuleType) -> None:
    """Put the cluster's name into the path of the socket that weights are sent through.

    Symptom: of two trainings on one machine one stops, or generates with the other's weights. verl
    names the socket after Ray's job, and the first job of every local cluster has the same number.
    """
    for end in (transfer.BucketedWeightSender, transfer.BucketedWeightReceiver):
        end.__init__ = _named(end.__init__)


def _named(stock_init: Any) -> Any:
    @functools.wraps(stock_init)
    def init(self: Any, zmq_handle: str, *args: Any, **kwargs: Any) -> None:
        stock_init(self, of_cluster(zmq_handle), *args, **kwargs)

    return init


def of_cluster(handle: str) -> str:
    """`ipc:///tmp/x.sock` as `ipc:///tmp/x-CLUSTER.sock`; unchanged where no cluster is named."""
    cluster = os.environ.get(CLUSTER_VARIABLE)
    return f"{handle.removesuffix('.sock')}-{cluster}.sock" if cluster else handle
