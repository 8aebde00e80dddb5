"""Ports of a local cluster: chosen once, remembered in `DIR/ports.json`, kept reserved while it runs.

A reservation is a bound socket that does not listen. It keeps the kernel from giving the port to somebody's
outgoing connection while the process that serves there is being restarted, and costs nothing. A process can
bind the same port beside it: with SO_REUSEADDR, as servers commonly do, or, for ports that several routers
share, with SO_REUSEPORT.
"""

import json
import logging
import socket
from pathlib import Path

log = logging.getLogger(__name__)

PORTS_FILE = "ports.json"


class PortTaken(Exception):
    """Somebody else listens on a port that was asked for by number; the message is for the user."""


class PortBook:
    """The ports of one data directory.

    Usage: `reserve` every port, `save`, start processes, `close` when they are gone.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / PORTS_FILE
        self._remembered = _load(self._path)
        self._used: dict[str, int] = {}
        self._sockets: list[socket.socket] = []

    def reserve(self, name: str, host: str, wanted: int = 0, *, shared: bool = False) -> int:
        """Reserve a port for the use `name` and return its number.

        Args:
            name: What it is for; the number is remembered under it.
            host: Address that will be listened on.
            wanted: The number, or 0: the remembered one when it is still free, else any free one.
            shared: Several processes will listen on it, with SO_REUSEPORT.

        Raises:
            PortTaken: `wanted` is not 0 and somebody listens there, or the host is not ours.
        """
        if wanted:
            try:
                held = _hold(host, wanted, shared=shared)
            except OSError as error:
                raise PortTaken(
                    f"cannot listen on {host}:{wanted} ({name}): {error.strerror}"
                ) from error
        else:
            held = self._hold_remembered(name, host, shared=shared)
        self._sockets.append(held)
        port = int(held.getsockname()[1])
        self._used[name] = port
        return port

    def _hold_remembered(self, name: str, host: str, *, shared: bool) -> socket.socket:
        remembered = self._remembered.get(name, 0)
        if remembered:
            try:
                return _hold(host, remembered, shared=shared)
            except OSError:
                log.warning(
                    "remembered port is taken, choosing another",
                    extra={"name_of_port": name, "port": remembered},
                )
        try:
            return _hold(host, 0, shared=shared)
        except OSError as error:
            raise PortTaken(f"cannot listen on {host} ({name}): {error.strerror}") from error

    def save(self) -> None:
        """Remember what was reserved, besides what earlier clusters of this directory used."""
        temporary = self._path.with_name(f".{PORTS_FILE}.new")
        content = json.dumps({**self._remembered, **self._used}, indent=2, sort_keys=True)
        temporary.write_text(content + "\n", encoding="utf-8")
        temporary.replace(self._path)

    def close(self) -> None:
        """Give all reservations back. Idempotent."""
        while self._sockets:
            self._sockets.pop().close()


def _load(path: Path) -> dict[str, int]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): int(port) for name, port in raw.items() if 0 < int(port) <= 65535}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, TypeError):
        log.warning("ports file is damaged, choosing new ports", extra={"path": str(path)})
        return {}


def _hold(host: str, port: int, *, shared: bool) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    if port:
        # SO_REUSEPORT would share the port with any other listener of this user that set it too, a second
        # cluster's routers for one, and split the clients' requests between the two. This bind fails then.
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    held = socket.socket(family, socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if not shared:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(address)
    except OSError:
        held.close()
        raise
    return held
