"""A storage node process: reads flags and clocks, opens the data directory, runs the node until SIGTERM or SIGINT.

A directory that is damaged is set aside, and the process starts again as a new disk, unless it is told not to.
"""

import argparse
import asyncio
import errno
import faulthandler
import gc
import logging
import os
import resource
import secrets
import sys
import time
from functools import partial
from pathlib import Path
from typing import NoReturn

import uvloop

from datamodel.limits import ITEM_COLLECTION_SIZE_BYTES_MAX
from proto.addresses import check_loopback
from proto.flags import FlagParser, add_listen_flag, add_process_flags, listen_address
from proto.logging_setup import configure_logging
from proto.process import Platform, stop_event
from raft.files import FileLogStorage
from raft.group import Settings
from raft.node_log import Corruption as LogCorruption
from storagenode.composition import (
    EXIT_CONFIGURATION,
    EXIT_DISK,
    Disk,
    Options,
    StorageNode,
)
from storagenode.data_directory import (
    DamagedDirectory,
    DataDirectory,
    DirectoryInUse,
    ForeignDirectory,
    note_damage,
    noted_damage,
    set_aside,
)
from storagenode.engines.engine import EngineDamage, EngineFailure
from storagenode.engines.leveldb_engine import LevelEngine
from storagenode.joining.bootstrap import InitialNode
from storagenode.replicas.lagging import EVENTUAL_READ_LAG_MS_MAX
from storagenode.replicas.log_entries import UnknownFormat
from storagenode.scrubbing import INTERVAL_S
from storagenode.snapshots.snapshot_sending import RATE_BYTES, RATE_BYTES_MIN
from storagenode.snapshots.snapshots import BadSnapshot

log = logging.getLogger(__name__)

FILES_CHECK_S = 5.0
LOG_CHECK_S = 30.0
"""How often the engine's files are compared with the directory, and the next segment of the log is read again."""
GC_THRESHOLDS = (50_000, 20, 100)
OPEN_FILES_WANTED = 8192
"""LevelDB keeps up to a fifth of its limit of tables open, and opens every other one for each read."""


def initial_cluster(text: str) -> list[InitialNode]:
    """An argparse `type`: `name@az=host:port,...`."""
    nodes = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name_az, equals, address = part.partition("=")
        name, at, az = name_az.partition("@")
        if not (equals and at and name and az):
            raise argparse.ArgumentTypeError(f"{part!r}: expected name@az=host:port")
        nodes.append(InitialNode(name, az, listen_address(address)))
    if len({node.name for node in nodes}) != len(nodes):
        raise argparse.ArgumentTypeError("a node is listed twice")
    return nodes


def _margin(text: str) -> float:
    """An argparse `type`: from 0 to 1."""
    margin = float(text)
    if not 0 <= margin <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0 to 1")
    return margin


def _milliseconds(text: str) -> int:
    """An argparse `type`: up to a minute."""
    milliseconds = int(text)
    if not 0 <= milliseconds <= EVENTUAL_READ_LAG_MS_MAX:
        raise argparse.ArgumentTypeError(f"{text}: expected 0 to {EVENTUAL_READ_LAG_MS_MAX}")
    return milliseconds


def snapshot_rate(text: str) -> int:
    """An argparse `type`: bytes per second."""
    rate = int(text)
    if rate and rate < RATE_BYTES_MIN:
        raise argparse.ArgumentTypeError(f"{text}: 0, or at least {RATE_BYTES_MIN}")
    return rate


def parse_flags(argv: list[str]) -> argparse.Namespace:
    """Flags and environment variables of a storage node."""
    parser = FlagParser(prog="quorate storagenode", description="Run one storage node.")
    parser.add_argument("--name", required=True, help="stable name of the node: storage-az1-0")
    parser.add_argument("--az", required=True, help="availability zone: az1")
    parser.add_argument("--data-dir", required=True, type=Path, help="where its data lives")
    add_listen_flag(parser, "--link-listen", "127.0.0.1:0", "for links")
    add_listen_flag(parser, "--grpc-listen", "127.0.0.1:0", "for gRPC")
    add_listen_flag(parser, "--metrics-listen", "127.0.0.1:0", "for /metrics")
    parser.add_argument(
        "--initial-cluster",
        type=initial_cluster,
        default=[],
        help="nodes that form, or formed, the first cluster: name@az=host:port,...",
    )
    parser.add_argument(
        "--advertise",
        type=listen_address,
        help="link address under which others reach this node (default: where it listens)",
    )
    parser.add_argument(
        "--item-collection-size-max",
        type=int,
        default=ITEM_COLLECTION_SIZE_BYTES_MAX,
        help="bytes that an item collection may have in a table with local indexes (default: 10 GB)",
    )
    parser.add_argument(
        "--scrub-interval",
        type=float,
        default=INTERVAL_S,
        metavar="SECONDS",
        help="how often the replicas of each partition are compared; 0: never (21600)",
    )
    parser.add_argument(
        "--clock-drift-margin",
        type=_margin,
        default=Settings().clock_drift_margin,
        metavar="FRACTION",
        help="how much shorter than the promises it rests on a leader's lease is; "
        "1: no leases, every strong read asks a majority (0.2)",
    )
    parser.add_argument(
        "--snapshot-rate",
        type=snapshot_rate,
        default=RATE_BYTES,
        metavar="BYTES",
        help="per second, of snapshots sent, and as much received; 0: no limit (33554432)",
    )
    parser.add_argument(
        "--eventual-read-lag",
        type=_milliseconds,
        default=0,
        metavar="MS",
        help="make eventually consistent reads so old on purpose, to find code that counts on fresh ones (0)",
    )
    parser.add_argument(
        "--keep-damaged",
        action="store_true",
        help="refuse to start on damaged data, instead of setting it aside and starting as a new disk",
    )
    parser.add_argument(
        "--no-fsync",
        action="store_true",
        help="do not wait for the disk: loses acknowledged writes, for benchmarks only",
    )
    add_process_flags(parser)
    flags: argparse.Namespace = parser.parse_args(argv)
    return flags


def main(argv: list[str]) -> int:
    """Run a storage node until it is told to stop. Returns the process's exit status."""
    flags = parse_flags(argv)
    configure_logging(flags.name, flags.log_format)
    faulthandler.enable()  # (should native code end the process)
    _allow_open_files()
    for address in (flags.link_listen, flags.grpc_listen, flags.metrics_listen):
        check_loopback(address, flags.insecure)
    if flags.no_fsync:
        log.warning("not waiting for the disk (--no-fsync): acknowledged writes can be lost")
    try:
        uvloop.run(_run(flags))
    except (DirectoryInUse, ForeignDirectory) as error:
        log.critical("cannot start: %s", error)
        return EXIT_CONFIGURATION
    except (EngineDamage, BadSnapshot, LogCorruption, DamagedDirectory) as error:
        return _give_up(flags, error)
    except (EngineFailure, UnknownFormat) as error:
        log.critical("cannot use the data directory: %s", error)
        return EXIT_DISK
    except OSError as error:
        if error.errno == errno.EIO:  # a sector of the log, say, that cannot be read
            return _give_up(flags, error)
        log.critical("cannot start: %s", error)
        return EXIT_DISK if error.errno in (errno.ENOSPC, errno.EDQUOT) else EXIT_CONFIGURATION
    return 0


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _give_up(flags: argparse.Namespace, error: Exception) -> int:
    """Start again as a new disk, unless that is not wanted, or cannot be."""
    log.critical("the data directory is damaged: %s", error)
    if flags.keep_damaged:
        return EXIT_DISK
    try:
        set_aside(flags.data_dir, str(error))
    except OSError as failure:
        log.critical("cannot set the data directory aside: %s", failure)
        return EXIT_DISK
    return _start_again()


async def _run(flags: argparse.Namespace) -> None:
    directory = DataDirectory(flags.data_dir)
    reason = noted_damage(flags.data_dir)
    if reason is not None:
        if flags.keep_damaged:
            directory.close()
            raise EngineDamage(reason)
        set_aside(flags.data_dir, reason)
        directory.close()
        directory = DataDirectory(flags.data_dir)
    try:
        stop = stop_event()
        node = StorageNode(_options(flags), _platform(), _disk(flags, directory))
        await node.start()
        node.watch_files(FILES_CHECK_S, LOG_CHECK_S)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        await stop.wait()
        await node.stop()
    finally:
        directory.close()


def _options(flags: argparse.Namespace) -> Options:
    return Options(
        name=flags.name,
        az=flags.az,
        link_listen=flags.link_listen,
        grpc_listen=flags.grpc_listen,
        metrics_listen=flags.metrics_listen,
        initial_cluster=flags.initial_cluster,
        advertise=flags.advertise,
        item_collection_size_max=flags.item_collection_size_max,
        scrub_interval_s=flags.scrub_interval,
        raft=Settings(clock_drift_margin=flags.clock_drift_margin),
        snapshot_rate=flags.snapshot_rate,
        eventual_read_lag_s=flags.eventual_read_lag / 1000,
        keep_damaged=flags.keep_damaged,
    )


def _platform() -> Platform:
    return Platform(
        # Since boot, suspension included: a lease must not outlive a sleep of the machine.
        now=partial(time.clock_gettime, time.CLOCK_BOOTTIME),
        wall_clock=time.time,
        random_bytes=secrets.token_bytes,
    )


def _disk(flags: argparse.Namespace, directory: DataDirectory) -> Disk:
    def replace(reason: str) -> NoReturn:
        note_damage(flags.data_dir, reason)
        _start_again()

    return Disk(
        directory=directory,
        open_engine=lambda: LevelEngine(directory.engine),
        open_log=lambda segment_bytes: FileLogStorage(
            directory.log,
            asyncio.get_running_loop().call_soon_threadsafe,
            segment_bytes,
            fsync=not flags.no_fsync,
        ),
        exit=os._exit,
        replace=replace,
    )


def _start_again() -> NoReturn:
    """Become the same process anew: what was open is closed by that."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    os.execv(sys.executable, sys.orig_argv)
