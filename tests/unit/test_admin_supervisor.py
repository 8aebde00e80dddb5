"""The supervisor, over stand-ins for the real processes."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from admin import supervisor
from admin.cluster_file import DEAD, RUNNING, read_cluster_file
from admin.local_cluster import UpOptions
from admin.log_output import LINE_BYTES_MAX, LogOutput, Prefixer, pump_lines
from admin.supervisor import answers_ok, describe_exit, restart_delay
from tests.cluster.harness import is_alive

# Serves 200 on the ports of its flags; writes its name to the file STARTED names; exits on SIGTERM.
STAND_IN = """
import http.server, os, signal, socketserver, sys, threading, time
name = sys.argv[sys.argv.index("--name") + 1]
with open(os.environ["STARTED"], "a") as started:
    started.write(name + "\\n")
if name in os.environ.get("BROKEN", "").split(","):
    sys.exit("broken on purpose")
if name in os.environ.get("STUBBORN", "").split(","):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    def stop(*_):
        with open(os.environ["STARTED"] + ".stopped", "a") as stopped:
            stopped.write(name + "\\n")
        os._exit(0)
    signal.signal(signal.SIGTERM, stop)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    allow_reuse_port = True
for flag in ("--metrics-listen", "--http-listen"):
    if flag in sys.argv:
        host, port = sys.argv[sys.argv.index(flag) + 1].split(":")
        server = Server((host, int(port)), Answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
print(name, "speaks", file=sys.stderr, flush=True)
while True:
    time.sleep(0.02)  # (`pause` can miss a signal that comes just before it)
"""


def _wait(condition, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("not in time")


class Up:
    """A supervisor in a process of its own, which runs stand-ins."""

    def __init__(self, folder: Path, *flags: str, **environment: str) -> None:
        self.data_dir = folder / "data"
        self.started = folder / "started"
        stand_in = folder / "stand_in.py"
        stand_in.write_text(STAND_IN)
        launcher = folder / "launcher.py"
        launcher.write_text(
            "import sys\nfrom admin import cli, local_cluster, supervisor\n"
            f"local_cluster.default_start = lambda: [sys.executable, {str(stand_in)!r}]\n"
            "supervisor.STOP_TIMEOUT_S = 1.0\n"
            "sys.exit(cli.main(sys.argv[1:]))\n"
        )
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(launcher),
                "up",
                "--data-dir",
                str(self.data_dir),
                *("--http-port", "0", "--grpc-port", "0", "--storage-nodes", "1"),
                *flags,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                **environment,
                "STARTED": str(self.started),
                "PYTHONPATH": str(Path(supervisor.__file__).parent.parent),
            },
        )

    def ready(self):
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("quorate: ready - DynamoDB endpoint http://127.0.0.1:"), self.end()
        return read_cluster_file(self.data_dir)

    def entry(self, name):
        return next(p for p in read_cluster_file(self.data_dir).processes if p.name == name)

    def end(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        return out + err


@pytest.fixture
def up(tmp_path):
    running = []

    def start(*flags, **environment):
        running.append(Up(tmp_path, *flags, **environment))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_life_of_a_cluster(up, number):
    one = up()
    cluster = one.ready()
    assert cluster.supervisor == one.process.pid
    assert [p.name for p in cluster.processes] == ["storage-az1-0", "admin-0", "router-0"]
    assert all(p.state == RUNNING and is_alive(p.pid) for p in cluster.processes)
    log = one.end(number)
    assert one.process.returncode == 0, log
    assert "router-0      | router-0 speaks" in log
    assert not any(is_alive(p.pid) for p in cluster.processes)
    assert not (one.data_dir / "cluster.json").exists()
    stopped = Path(f"{one.started}.stopped").read_text().split()
    assert stopped == ["router-0", "admin-0", "storage-az1-0"]


def test_the_dead_are_restarted_and_the_file_says_so(up):
    one = up()
    old = one.ready().processes[0]
    os.kill(old.pid, signal.SIGKILL)
    _wait(lambda: one.entry(old.name).pid != old.pid)
    new = one.entry(old.name)
    assert new.state == RUNNING
    assert is_alive(new.pid)
    assert new.argv == old.argv
    assert "signal SIGKILL" in one.end()


def test_no_restart_leaves_the_dead_dead(up):
    one = up("--no-restart")
    old = one.ready().processes[0]
    os.kill(old.pid, signal.SIGKILL)
    _wait(lambda: one.entry(old.name).state == DEAD)
    entry = one.entry(old.name)
    # What the file says is enough to start it again by hand.
    again = subprocess.Popen(
        entry.argv, env={**os.environ, **entry.env, "STARTED": os.devnull}, cwd=entry.cwd
    )
    try:
        _wait(lambda: asyncio.run(answers_ok(entry.metrics)))
    finally:
        again.kill()
        again.wait()
    one.end()
    assert one.process.returncode == 0


def test_processes_die_with_a_killed_supervisor(up):
    one = up()
    pids = [p.pid for p in one.ready().processes]
    one.process.kill()
    _wait(lambda: not any(is_alive(pid) for pid in pids))


def test_a_paused_and_a_stubborn_process_are_ended_too(up):
    one = up(STUBBORN="admin-0")
    cluster = one.ready()
    os.kill(cluster.processes[0].pid, signal.SIGSTOP)
    log = one.end()
    assert one.process.returncode == 0
    assert not any(is_alive(p.pid) for p in cluster.processes)
    assert "process does not stop, killing it process_name=admin-0" in log


@pytest.mark.parametrize("flags", [(), ("--no-restart",)])
def test_a_process_that_never_starts_ends_the_cluster(up, flags):
    one = up(*flags, BROKEN="admin-0")
    out, err = one.process.communicate(timeout=30)
    assert one.process.returncode == 1
    assert out == ""
    assert "broken on purpose" in err
    assert "admin-0 did not start" in err
    attempts = one.started.read_text().split().count("admin-0")
    assert attempts == (1 if flags else supervisor.START_ATTEMPTS_MAX)


def test_json_logs_have_no_prefix(up):
    one = up("--log-format", "json")
    old = one.ready().processes[0]
    os.kill(old.pid, signal.SIGKILL)
    _wait(lambda: one.entry(old.name).pid != old.pid)
    lines = one.end().splitlines()
    assert "storage-az1-0 speaks" in lines
    # The one started in its place may die too: the end can come before it listens to signals.
    died = [json.loads(line) for line in lines if "process died" in line][0]  # noqa: RUF015
    assert died["process"] == "supervisor"
    assert died["process_name"] == "storage-az1-0"


def test_restart_delays_grow_to_a_bound():
    delays = [restart_delay(n) for n in range(1, 12)]
    assert delays == sorted(delays)
    assert delays[0] < 0.5
    assert delays[-1] == 10.0


@pytest.mark.parametrize(
    ("code", "text"),
    [(0, "exit code 0"), (3, "exit code 3"), (-9, "signal SIGKILL"), (-99, "signal 99")],
)
def test_describe_exit(code, text):
    assert describe_exit(code) == text


def test_pump_lines_cuts_what_never_ends_and_keeps_the_rest():
    lines = []

    class Output:
        write_line = staticmethod(lines.append)

    async def main():
        reader = asyncio.StreamReader()
        reader.feed_data(b"one\ntw")
        reader.feed_data(b"o\n" + b"x" * (3 * LINE_BYTES_MAX) + b"\nlast \xff")
        reader.feed_eof()
        await pump_lines(reader, "p| ", Output())

    asyncio.run(main())
    assert lines[:2] == ["p| one", "p| two"]
    assert lines[-1] == "p| last \ufffd"
    assert sum(line.count("x") for line in lines) == 3 * LINE_BYTES_MAX
    assert max(map(len, lines)) <= 2 * LINE_BYTES_MAX + 3


def test_a_reader_that_does_not_read_stops_nobody(monkeypatch):
    release = threading.Event()

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            release.wait(10)
            return super().write(text)

    stream = Stuck()
    monkeypatch.setattr("admin.log_output.LINES_MAX", 10)
    output = LogOutput(stream)
    for n in range(50):
        output.write_line(str(n))
    release.set()
    _wait(lambda: "\n5\n" in stream.getvalue())
    _wait(lambda: output._lines.empty())
    output.write_line("after")
    output.close()
    text = stream.getvalue()
    assert "log lines dropped" in text
    assert text.endswith("after\n")


def test_prefixes_line_up_and_have_a_colour_each():
    plain = Prefixer(10, coloured=False)
    assert plain.prefix("router-0") == "router-0   | "
    coloured = Prefixer(10, coloured=True)
    assert len({coloured.prefix(name)[:5] for name in "abc"}) == 3
    assert coloured.prefix("a") == coloured.prefix("a")


def test_options_have_the_documented_defaults():
    options = UpOptions(data_dir=Path("x"))
    assert (options.http_port, options.grpc_port, options.storage_nodes) == (8000, 50051, 3)
    assert (options.region, options.account_id) == ("us-east-1", "000000000000")
