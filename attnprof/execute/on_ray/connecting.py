"""Joining a Ray cluster, or starting one on this machine: a sentence where that fails, and nothing of Ray's on stdout."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attnprof.errors import AttnprofError, UsageError, told

_ANSWER_S = 5.0
GLANCE_S = 5.0  # the head is looked at so often
_PATIENCE = 3  # looks without an answer, in which the work itself notices and says so
_SHARED_BYTES = 128 * 2**20  # of a Ray of our own: answers are records, a few hundred kilobytes each at most
_SETTINGS = 4  # HTTP/2's first frame of either side: Ray's head speaks gRPC
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0))
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray is going to do anyway: a task without a GPU keeps its environment
    "RAY_TQDM_PATCH_PRINT": "0",
    "RAY_DEDUP_LOGS": "0",
}


@contextmanager
def connected(address: str | None = None, tell: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Be the driver of a cluster: at `address` (HOST:PORT, auto), else RAY_ADDRESS, else a Ray of this machine alone.

    `tell` gets a line about a Ray that is started here. Raises UsageError where there is no Ray, or none at the address.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise UsageError("--executor ray needs Ray: pip install 'attnprof[ray]'.") from error
    _keep_off_stdout()
    if ray.is_initialized():  # the caller's: it stays
        yield
        return
    wanted = address or os.environ.get("RAY_ADDRESS") or "local"
    if wanted == "local":
        tell("no --ray-address and no RAY_ADDRESS: starting a Ray on this machine alone")
    else:
        _check(wanted)
    try:
        ray.init(
            address=wanted,
            include_dashboard=None if wanted != "local" else False,
            object_store_memory=None if wanted != "local" else _SHARED_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:
        raise UsageError(f"--ray-address {wanted}: {_reason(error)}") from error
    done, head, gone = threading.Event(), ray.get_runtime_context().gcs_address, False
    threading.Thread(target=_leave_without_a_head, args=(head, done), daemon=True).start()
    try:
        yield
    except HeadGoneError:
        gone = True
        raise
    finally:
        done.set()
        if not gone:  # to leave a cluster Ray asks its head
            ray.shutdown()


class HeadGoneError(AttnprofError):
    """The head of the cluster does not answer any more. Calls of Ray would wait for it for a minute, then end this process."""


_GONE = "the head of the Ray cluster is gone. What is finished is in the store: start Ray again and run with --resume."


def require_head() -> None:
    """Raise HeadGoneError where nobody answers at the head's address."""
    import ray

    if not _answers(ray.get_runtime_context().gcs_address):
        raise HeadGoneError(_GONE)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=GLANCE_S).close()
    except OSError:
        return False
    return True


def _leave_without_a_head(address: str, done: threading.Event) -> None:
    """Who asks Ray for something at the moment when its head goes does not come back: then this process ends, with a word."""
    gone = 0
    while not done.wait(GLANCE_S):
        gone = 0 if _answers(address) else gone + 1
        if gone >= _PATIENCE and not done.is_set():
            os.write(2, f"attnprof: {_GONE}\n".encode())
            os._exit(HeadGoneError.exit_code)


def _keep_off_stdout() -> None:
    """Ray prints what befalls a node to stdout, whatever `log_to_driver` says; the driver tells of it itself, on stderr."""
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = _unsaid


def _unsaid(*_: object, **__: object) -> None:
    pass


def _reason(error: Exception) -> str:
    """Why Ray could not be joined: its first line, and what that may mean."""
    first = told(error).splitlines()[0].rstrip(".")
    return (
        f"{first[:300]}. This machine has to be a node of that cluster (`ray start --address=HOST:PORT`), and RAY_AUTH_MODE "
        "and RAY_AUTH_TOKEN (or ~/.ray/auth_token) have to be the cluster's."
    )


def _check(address: str) -> None:
    """Refuse an address at which no Ray head answers, within seconds: Ray itself would try for two minutes."""
    if address == "auto":
        return
    if "://" in address:
        raise UsageError(
            f"--ray-address {address}: the driver has to be a node of the cluster (tasks are placed on nodes by name). "
            "Run it on one, with --ray-address auto or HOST:PORT."
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"--ray-address {address}: HOST:PORT, as `ray start --head` prints it, or auto.")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S) as channel:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                return
            channel.sendall(_HELLO)
            head = channel.recv(9)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"--ray-address {address}: nobody answers there ({why}). `ray start --head` starts a Ray.") from error
    if len(head) < 4 or head[3] != _SETTINGS:
        raise UsageError(f"--ray-address {address}: what answers there is no Ray head. `ray start --head` prints its address.")
