"""The `quorate` command: a local cluster (`up`, `status`, `scrub`, `down`) and single processes for containers.

`quorate storagenode|router|admin` hands everything after the name to that package's `main`.
"""

import argparse
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from admin.cluster_file import (
    AlreadyRunning,
    ClusterFile,
    ClusterFileError,
    read_cluster_file,
    running_supervisor,
)
from admin.local_cluster import ROUTERS_MAX, STORAGE_NODES_MAX, UpOptions
from admin.ports import PortTaken
from datamodel.wording import NEWEST, WORDINGS
from proto.addresses import check_loopback, format_address
from proto.flags import FlagParser, add_process_flags
from proto.logging_setup import configure_logging

DATA_DIR = ".quorate"
DOWN_TIMEOUT_S = 60.0
DOWN_POLL_S = 0.05

PROCESSES = {
    "storagenode": "run one storage node",
    "router": "run one request router",
    "admin": "run one control plane process",
}

_DESCRIPTION = "Quorate: an open, self-hosted DynamoDB."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (2: wrong usage, 1: it failed, with a message on stderr)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in PROCESSES:
        return _run_process(arguments[0], arguments[1:])
    flags = build_parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = flags.run
    try:
        return run(flags)
    except (AlreadyRunning, ClusterFileError, PortTaken) as error:
        return _fail(str(error))
    except BrokenPipeError:
        # The reader of our output has left (`quorate status | head`): nobody to complain to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _fail(message: str) -> int:
    print(f"quorate: {message}", file=sys.stderr)
    return 1


def _run_process(name: str, arguments: list[str]) -> int:
    run: Callable[[list[str]], int] = importlib.import_module(f"{name}.main").main
    return run(arguments)


def version() -> str:
    """The installed version; "unknown" when run from a source tree without an installation."""
    # Every process of a cluster comes through this module: megabytes that only --version needs stay out.
    from importlib import metadata

    try:
        return metadata.version("quorate")
    except metadata.PackageNotFoundError:
        return "unknown"


class _ShowVersion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"quorate {version()}")
        parser.exit()


def build_parser() -> FlagParser:
    """The parser of everything but the single processes, whose flags are their own."""
    parser = FlagParser(prog="quorate", description=_DESCRIPTION)
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_up(commands)
    _add_status(commands)
    _add_scrub(commands)
    _add_down(commands)
    for name, summary in PROCESSES.items():
        # For the list of commands only: main() passes these on before parsing.
        commands.add_parser(name, help=f"{summary} (for containers; --help lists its flags)")
    return parser


def _count(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"expected {low} to {high}, not {number}")
        return number

    parse.__name__ = "number"
    return parse


def _account_id(text: str) -> str:
    if not (len(text) == 12 and text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError("an account id has twelve digits")
    return text


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(DATA_DIR),
        metavar="DIR",
        help=f"where the cluster keeps everything (default {DATA_DIR})",
    )


def _add_admin(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--admin",
        metavar="HOST:PORT",
        help="gRPC address of an admin process instead of --data-dir",
    )


def _add_up(commands: "argparse._SubParsersAction[FlagParser]") -> None:
    up = commands.add_parser(
        "up",
        help="run a local cluster in the foreground",
        description="Run a local cluster in the foreground until Ctrl-C. Data stays in --data-dir.",
    )
    up.set_defaults(run=_up)
    _add_data_dir(up)
    port = _count(0, 65535)
    up.add_argument(
        "--http-port", type=port, default=8000, metavar="N", help="0 picks a free one (8000)"
    )
    up.add_argument(
        "--grpc-port", type=port, default=50051, metavar="N", help="0 picks a free one (50051)"
    )
    up.add_argument(
        "--host",
        default="127.0.0.1",
        help="where clients connect (127.0.0.1); others need --insecure",
    )
    up.add_argument(
        "--storage-nodes",
        type=_count(1, STORAGE_NODES_MAX),
        default=3,
        metavar="N",
        help="spread over az1, az2, az3 (3)",
    )
    up.add_argument("--routers", type=_count(1, ROUTERS_MAX), default=1, metavar="N", help="(1)")
    up.add_argument("--region", default="us-east-1", help="region name in ARNs (us-east-1)")
    up.add_argument(
        "--account-id", type=_account_id, default="000000000000", help="in ARNs (000000000000)"
    )
    up.add_argument(
        "--eventual-read-lag",
        type=_count(0, 60_000),
        default=0,
        metavar="MS",
        help="make eventually consistent reads so old on purpose (0)",
    )
    up.add_argument(
        "--validation-wording",
        choices=sorted(WORDINGS),
        default=NEWEST,
        help=f"year of the service's texts for wrong requests ({NEWEST})",
    )
    up.add_argument("--no-restart", action="store_true", help="leave dead processes dead")
    up.add_argument(
        "--no-fsync",
        action="store_true",
        help="do not wait for the disk: acknowledged writes can be lost; only a control for benchmarks",
    )
    add_process_flags(up)


def _up(flags: argparse.Namespace) -> int:
    from admin.supervisor import run_cluster  # the other commands start faster without

    configure_logging("supervisor", "json" if flags.log_format == "json" else "text")
    host = flags.host.strip("[]")
    check_loopback(format_address(host, flags.http_port), flags.insecure)
    options = UpOptions(
        data_dir=flags.data_dir.resolve(),
        http_port=flags.http_port,
        grpc_port=flags.grpc_port,
        storage_nodes=flags.storage_nodes,
        routers=flags.routers,
        restart=not flags.no_restart,
        region=flags.region,
        account_id=flags.account_id,
        insecure=flags.insecure,
        log_format=flags.log_format,
        fsync=not flags.no_fsync,
        eventual_read_lag_ms=flags.eventual_read_lag,
        validation_wording=flags.validation_wording,
        host=host,
    )
    if not options.fsync:
        print(
            "quorate: --no-fsync: acknowledged writes WILL be lost when machines fail",
            file=sys.stderr,
        )
    try:
        return run_cluster(options)
    except OSError as error:
        return _fail(f"cannot use {options.data_dir}: {error.strerror}")


def _add_status(commands: "argparse._SubParsersAction[FlagParser]") -> None:
    status = commands.add_parser(
        "status",
        help="show nodes, tables, partitions and replicas",
        description="Show nodes, tables, partitions and each replica's zone, role, term and lag.",
    )
    status.set_defaults(run=_status)
    _add_data_dir(status)
    _add_admin(status)
    status.add_argument("--json", action="store_true", help="for programs")


def _status(flags: argparse.Namespace) -> int:
    from admin.status import show_status  # brings gRPC along

    cluster = None if flags.admin else read_cluster_file(flags.data_dir)
    address = _admin_address(flags, cluster)
    return show_status(address, cluster, as_json=flags.json, out=sys.stdout, err=sys.stderr)


def _admin_address(flags: argparse.Namespace, cluster: ClusterFile | None) -> str:
    if cluster is None:
        address: str = flags.admin
        return address
    entry = cluster.first("admin")
    if entry is None:
        raise ClusterFileError("the cluster has no admin process")
    return entry.grpc


def _add_scrub(commands: "argparse._SubParsersAction[FlagParser]") -> None:
    scrub = commands.add_parser(
        "scrub",
        help="compare the replicas of every partition now, and repair what differs",
        description="Compare the replicas of every partition now. One that is damaged, or differs from"
        " the majority, is repaired. Exit code 0: all are the same.",
    )
    scrub.set_defaults(run=_scrub)
    _add_data_dir(scrub)
    _add_admin(scrub)
    scrub.add_argument("--table", default="", metavar="NAME", help="only this table's partitions")


def _scrub(flags: argparse.Namespace) -> int:
    from admin.scrub import show_scrub  # brings gRPC along

    cluster = None if flags.admin else read_cluster_file(flags.data_dir)
    return show_scrub(_admin_address(flags, cluster), flags.table, sys.stdout, sys.stderr)


def _add_down(commands: "argparse._SubParsersAction[FlagParser]") -> None:
    down = commands.add_parser(
        "down",
        help="stop the local cluster",
        description="Stop the cluster that `quorate up` runs on --data-dir and wait until it is gone.",
    )
    down.set_defaults(run=_down)
    _add_data_dir(down)


def _down(flags: argparse.Namespace) -> int:
    if not flags.data_dir.is_dir():
        return _fail(f"{flags.data_dir} does not exist")
    pid = running_supervisor(flags.data_dir)
    if pid is None:
        print(f"quorate: no cluster runs on {flags.data_dir}")
        return 0
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it ended by itself in this moment
    except PermissionError:
        return _fail(f"the supervisor (pid {pid}) belongs to another user")
    for _ in range(round(DOWN_TIMEOUT_S / DOWN_POLL_S)):
        if running_supervisor(flags.data_dir) != pid:
            print("quorate: stopped")
            return 0
        time.sleep(DOWN_POLL_S)
    return _fail(f"the supervisor (pid {pid}) has not stopped after {DOWN_TIMEOUT_S:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
