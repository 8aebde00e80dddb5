"""A storage node's data directory: whose disk this is, who else there is, and that only one process uses it.

lock         held (flock) while a process runs on the directory
node.json    identity of this disk and the cluster it belongs to
peers.json   other nodes as last heard of
engine/      LevelDB
log/         raft log segments
snapshots/   snapshots being received
damaged      why the directory must not be used any more; set aside at the next start
"""

import fcntl
import glob
import logging
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

log = logging.getLogger(__name__)

IDENTITY_VERSION = 1
ASIDE_MAX = 8
"""Damaged directories kept beside a node's; with so many, something else is wrong, and a person must look."""
DAMAGE_NOTE = "damaged"


class DirectoryInUse(Exception):
    """Another process runs on the data directory."""


class ForeignDirectory(Exception):
    """The data directory belongs to another node, or to a release that this one does not understand."""


class DamagedDirectory(Exception):
    """What the data directory says of itself is not what was written."""


class Identity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who this disk is.

    Attributes:
        version: Of this form.
        node_id: Never reused.
        name: The node's.
        az: Its zone.
        cluster_id: Empty while no cluster is known.
        replaces_damaged: Whether damaged data of this node was set aside before: somewhere there is, or was, a
            cluster that it belongs to.
    """

    version: int = IDENTITY_VERSION
    node_id: str
    name: str
    az: str
    cluster_id: str = ""
    replaces_damaged: bool = False


class Peer(msgspec.Struct, frozen=True):
    """Another storage node, as it last described itself; `grpc` may be unknown."""

    node_id: str
    name: str
    az: str
    address: str
    grpc: str = ""


class DataDirectory:
    """The directory, locked for this process until `close`."""

    def __init__(self, path: Path) -> None:
        """Create it if need be, and lock it.

        Raises:
            DirectoryInUse: By another process.
        """
        self.path = path
        self.engine = path / "engine"
        self.log = path / "log"
        self.snapshots = path / "snapshots"
        path.mkdir(parents=True, exist_ok=True)
        self.snapshots.mkdir(exist_ok=True)
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise DirectoryInUse(f"{path} is in use by another storage node process") from error

    def close(self) -> None:
        """Unlock."""
        os.close(self._lock)

    def load_identity(self, name: str, az: str, random_suffix: str) -> Identity:
        """The identity of this disk; a fresh one (durably stored) for an empty directory.

        Raises:
            ForeignDirectory: The disk is another node's.
            DamagedDirectory: Whose it is cannot be told any more.
        """
        path = self.path / "node.json"
        if not path.exists():
            if self.log.exists() or self.engine.exists():
                raise DamagedDirectory(f"{path} is missing")
            identity = Identity(
                node_id=f"{name}.{random_suffix}",
                name=name,
                az=az,
                replaces_damaged=next(_set_aside(self.path), None) is not None,
            )
            self.store_identity(identity)
            return identity
        identity, is_sealed = _decode_identity(path)
        if identity.version != IDENTITY_VERSION:
            raise ForeignDirectory(f"{path}: version {identity.version} is not known")
        if identity.name != name:
            raise ForeignDirectory(f"{path} is the disk of {identity.name}, not of {name}")
        if identity.az != az or not is_sealed:
            identity = msgspec.structs.replace(identity, az=az)
            self.store_identity(identity)
        return identity

    def store_identity(self, identity: Identity) -> None:
        """Durably."""
        sealed = {**msgspec.to_builtins(identity), "crc32": _checksum(identity)}
        self._store("node.json", msgspec.json.encode(sealed))

    def load_peers(self) -> list[Peer]:
        """Peers of an earlier life; none if the file is missing or damaged (they introduce themselves anew)."""
        try:
            return msgspec.json.decode((self.path / "peers.json").read_bytes(), type=list[Peer])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return []

    def store_peers(self, peers: Iterable[Peer]) -> None:
        """Durably."""
        self._store("peers.json", msgspec.json.encode(list(peers)))

    def _store(self, name: str, data: bytes) -> None:
        temporary, final = self.path / f"{name}.new", self.path / name
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(final)
        _sync_directory(self.path)


def _checksum(identity: Identity) -> int:
    return zlib.crc32(msgspec.json.encode(identity))


def _decode_identity(path: Path) -> tuple[Identity, bool]:
    """The identity, and whether it has a checksum (releases before the first wrote none)."""
    try:
        fields = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        checksum = fields.pop("crc32", None)
        identity = msgspec.convert(fields, Identity)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamagedDirectory(f"{path}: {error}") from error
    if checksum not in (None, _checksum(identity)):
        raise DamagedDirectory(f"{path}: the checksum is wrong")
    return identity, checksum is not None


def note_damage(path: Path, reason: str) -> None:
    """Let the next start set the directory aside."""
    with (path / DAMAGE_NOTE).open("w") as file:
        file.write(reason)
        file.flush()
        os.fsync(file.fileno())
    _sync_directory(path)


def noted_damage(path: Path) -> str | None:
    """Why the directory must not be used, None if it may."""
    try:
        return (path / DAMAGE_NOTE).read_text(errors="replace") or "noted without a reason"
    except FileNotFoundError:
        return None


def set_aside(path: Path, reason: str) -> Path:
    """Put a damaged directory out of the way; returns where it is. What starts at `path` then is a new disk.

    It becomes `<path>.damaged-<n>`, or, if it cannot be renamed (the root of a volume), everything in it moves to
    `<path>/damaged-<n>`. Nothing is deleted.

    Raises:
        OSError: It cannot be moved, or there are `ASIDE_MAX` of them already.
    """
    for number in range(1, ASIDE_MAX + 1):
        beside, within = path.with_name(f"{path.name}.damaged-{number}"), path / f"damaged-{number}"
        if not beside.exists() and not within.exists():
            break
    else:
        raise OSError(f"{path}: {ASIDE_MAX} damaged directories are kept already")
    note_damage(path, reason)
    try:
        path.rename(beside)
        target = beside
    except OSError:
        within.mkdir()
        for entry in sorted(path.iterdir()):
            # The note last: an interrupted move is gone on with.
            if not entry.name.startswith("damaged"):
                entry.rename(within / entry.name)
        (path / DAMAGE_NOTE).rename(within / DAMAGE_NOTE)
        _sync_directory(path)
        target = within
    _sync_directory(path.parent)
    log.critical(
        "data directory is damaged and set aside; this node starts as a new disk",
        extra={"aside": str(target), "reason": reason},
    )
    return target


def _set_aside(path: Path) -> Iterator[Path]:
    yield from path.parent.glob(f"{glob.escape(path.name)}.damaged-*")
    yield from path.glob("damaged-*")


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
