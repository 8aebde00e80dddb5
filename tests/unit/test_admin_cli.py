"""The command line: usage, dispatch to processes, down and status without a cluster."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from admin import cli
from admin.cluster_file import AlreadyRunning
from admin.ports import PortTaken


def _usage_error(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as ending:
        cli.main(argv)
    assert ending.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("name", ["storagenode", "router", "admin"])
def test_processes_get_everything_after_their_name(monkeypatch, name):
    seen = []

    def run(arguments: list[str]) -> int:
        seen.append(arguments)
        return 7

    monkeypatch.setitem(sys.modules, f"{name}.main", SimpleNamespace(main=run))
    assert cli.main([name, "--name", "x", "--help"]) == 7
    assert seen == [["--name", "x", "--help"]]


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as ending:
        cli.main(["--help"])
    assert ending.value.code == 0
    text = capsys.readouterr().out
    for command in ("up", "status", "down", "storagenode", "router", "admin"):
        assert f"\n    {command}" in text


def test_up_help_names_every_option(capsys):
    with pytest.raises(SystemExit):
        cli.main(["up", "--help"])
    text = capsys.readouterr().out
    for option in (
        *("--data-dir", "--http-port", "--grpc-port", "--host", "--storage-nodes", "--routers"),
        *("--region", "--account-id", "--no-restart", "--no-fsync", "--insecure", "--log-format"),
        "QUORATE_SOME_FLAG",
    ):
        assert option in text


def test_version(capsys):
    with pytest.raises(SystemExit) as ending:
        cli.main(["--version"])
    assert ending.value.code == 0
    assert capsys.readouterr().out.startswith("quorate ")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["up", "--http-port", "65536"], "expected 0 to 65535, not 65536"),
        (["up", "--http-port", "many"], "invalid number value: 'many'"),
        (["up", "--storage-nodes", "0"], "expected 1 to"),
        (["up", "--routers", "0"], "expected 1 to"),
        (["up", "--account-id", "12"], "twelve digits"),
        (["up", "--log-format", "xml"], "invalid choice: 'xml'"),
    ],
)
def test_wrong_usage(capsys, argv, message):
    assert message in _usage_error(capsys, *argv)


@pytest.fixture
def ran(monkeypatch):
    """Options that `up` was run with, without running it."""
    seen = []

    def run_cluster(options):
        seen.append(options)
        return 0

    monkeypatch.setattr("admin.supervisor.run_cluster", run_cluster)
    monkeypatch.setattr(cli, "configure_logging", lambda *_: None)
    return seen


def test_up_flags_and_variables_become_options(ran, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("QUORATE_REGION", "eu-west-1")
    monkeypatch.chdir(tmp_path)
    argv = "up --http-port 0 --storage-nodes 5 --routers 2 --no-restart --no-fsync --account-id 123456789012"
    assert cli.main(argv.split()) == 0
    (options,) = ran
    assert options.data_dir == tmp_path / ".quorate"
    assert (options.http_port, options.grpc_port) == (0, 50051)
    assert (options.storage_nodes, options.routers) == (5, 2)
    assert (options.restart, options.fsync, options.insecure) == (False, False, False)
    assert (options.region, options.account_id) == ("eu-west-1", "123456789012")
    assert "WILL be lost" in capsys.readouterr().err


def test_up_refuses_to_listen_beyond_loopback(ran):
    with pytest.raises(SystemExit, match=r"refusing to listen on 0\.0\.0\.0:8000.*--insecure"):
        cli.main(["up", "--host", "0.0.0.0"])
    assert not ran
    assert cli.main(["up", "--host", "0.0.0.0", "--insecure"]) == 0
    assert cli.main(["up", "--host", "[::1]"]) == 0
    assert [options.host for options in ran] == ["0.0.0.0", "::1"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (AlreadyRunning("/data", 7), "a cluster already runs on /data (supervisor pid 7)"),
        (PortTaken("cannot listen on 127.0.0.1:8000"), "cannot listen on 127.0.0.1:8000"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
    ],
)
def test_up_explains_why_it_cannot(ran, monkeypatch, capsys, error, message):
    def fail(options):
        raise error

    monkeypatch.setattr("admin.supervisor.run_cluster", fail)
    assert cli.main(["up"]) == 1
    assert message in capsys.readouterr().err


def test_down_without_a_cluster(tmp_path, capsys):
    assert cli.main(["down", "--data-dir", str(tmp_path)]) == 0
    assert "no cluster runs" in capsys.readouterr().out
    assert cli.main(["down", "--data-dir", str(tmp_path / "missing")]) == 1


def test_down_waits_until_the_supervisor_is_gone(tmp_path, capsys):
    supervisor = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal, sys, pathlib, time\nfrom admin.cluster_file import DataDirLock\n"
            "def stop(*_):\n    time.sleep(0.3)\n    sys.exit()\n"
            "signal.signal(signal.SIGTERM, stop)\n"
            "DataDirLock(pathlib.Path(sys.argv[1])).acquire(); print('held', flush=True)\n"
            "while True:\n    time.sleep(0.02)",  # (`pause` can miss a signal that comes just before it)
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
    )
    with supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == b"held\n"
        assert cli.main(["down", "--data-dir", str(tmp_path)]) == 0
        assert supervisor.wait(5) == 0
    assert capsys.readouterr().out == "quorate: stopped\n"


def test_down_gives_up_in_the_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "running_supervisor", lambda _: os.getpid())
    monkeypatch.setattr(cli.os, "kill", lambda *_: None)
    monkeypatch.setattr(cli, "DOWN_TIMEOUT_S", 0.1)
    assert cli.main(["down", "--data-dir", str(tmp_path)]) == 1
    assert "has not stopped" in capsys.readouterr().err


def test_status_without_a_cluster(tmp_path, capsys):
    assert cli.main(["status", "--data-dir", str(tmp_path)]) == 1
    assert "start one with `quorate up`" in capsys.readouterr().err


def test_status_of_a_cluster_without_admin(tmp_path, capsys):
    content = {"http": "", "grpc": "", "supervisor": 1, "processes": []}
    (tmp_path / "cluster.json").write_text(json.dumps(content))
    assert cli.main(["status", "--data-dir", str(tmp_path)]) == 1
    assert "no admin process" in capsys.readouterr().err


def test_the_supervisor_imports_neither_grpc_nor_the_metrics_library():
    code = (
        "import sys, admin.cli, admin.supervisor\n"
        "print([m for m in ('grpc', 'prometheus_client', 'google.protobuf', 'plyvel') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
