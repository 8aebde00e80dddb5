"""The parts of the chaos runner that decide: ports, rules, keys, timelines, gaps."""

import os
import random
import socket
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from datamodel.key_encoding import encode_key, partition_bounds
from tests.chaos.__main__ import order, parse
from tests.chaos.disks import flip_bits
from tests.chaos.faults import FAULTS, said_of_disk
from tests.chaos.gaps import Probe, summary
from tests.chaos.network import iptables_rules, nft_script, ports_of, tcp_ports
from tests.chaos.tables import SCHEMA, keys_in_each
from tests.chaos.timeline import availability, buckets, strip

ROOT = Path(__file__).resolve().parents[2]
TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1
   1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 222 1
   2: 0100007F:0050 0100007F:1F91 01 00000000:00000000 00:00000000 00000000     0        0 333 1
"""


def test_ports_of_sockets():
    assert tcp_ports(TABLE, {"111", "222"}) == {8080, 50000}
    assert tcp_ports(TABLE, set()) == set()


def test_ports_of_this_process():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert {port, client.getsockname()[1]} <= ports_of(os.getpid())
    assert ports_of(2**22 + 1) == set()


def test_rules_match_ports_on_loopback_only():
    script = nft_script("quorate_chaos_1", {9, 7}, 100)
    assert "elements = { 7, 9 }" in script
    assert script.count('iifname "lo" tcp') == script.count(" drop\n") == 2
    assert "numgen" not in script
    assert "numgen random mod 100 < 20 drop" in nft_script("t", {7}, 20)
    assert iptables_rules("C", {7}, 100) == [
        ["-A", "C", "-p", "tcp", "--sport", "7", "-j", "DROP"],
        ["-A", "C", "-p", "tcp", "--dport", "7", "-j", "DROP"],
    ]
    assert "0.20" in iptables_rules("C", {7}, 20)[0]


def test_a_key_in_each_partition():
    keys = keys_in_each(256, 5)
    bounds = partition_bounds(256, 5)
    for key, start, end in zip(keys, bounds, bounds[1:], strict=False):
        assert start <= encode_key(256, SCHEMA, {"pk": {"S": key}}) < end


def test_timeline():
    counts = buckets([10.0, 10.1, 10.3, 11.9, 12.5], 10.0, 12.0)
    assert counts == [2, 1, 0, 0, 0, 0, 0, 1]
    assert strip(counts)[2:7] == " " * 5
    assert len(strip(counts)) == 8
    assert availability(counts) == 3 / 8
    assert strip([0, 0]) == "  "


def test_gaps_are_counted_from_the_fault_on():
    probe = Probe(lambda: "http://127.0.0.1:1", "t", "k")
    probe.acknowledged_at = [1.0, 5.0, 5.1, 6.1, 6.2]  # a pause before the fault is none of its own
    probe.failures = [(4.0, "503 ServiceUnavailable"), (5.5, "503 ServiceUnavailable")]
    gap = probe.gap_since(5.15)
    assert gap.gap_s == pytest.approx(1.0)
    assert gap.first_write_s == pytest.approx(0.95)
    assert gap.failed == 1
    assert "median 1000 ms" in summary("kill", [gap])
    assert probe.failure_counts() == {"503 ServiceUnavailable": 2}


def test_named_faults_are_played_in_rounds():
    options = parse(["pause", "kill", "--rounds", "2"])
    played = order(options, [FAULTS[name] for name in options.faults], None)
    assert [fault.name for fault in played] == ["pause", "pause", "kill", "kill"]
    with pytest.raises(SystemExit):
        parse(["no-such-fault"])


CLUSTER = SimpleNamespace(
    processes=lambda role=None: [
        process
        for process in (
            {"name": "storage-az1-0", "role": "storagenode", "az": "az1"},
            {"name": "router-0", "role": "router", "az": "az1"},
        )
        if role in (None, process["role"])
    ]
)


@pytest.mark.parametrize(
    ("fault", "target", "reason"),
    [
        ("kill", "router-0", ""),
        ("kill", "router-9", "router-9 is none of router-0, storage-az1-0"),
        ("partition", "router-0", "router-0 is none of storage-az1-0"),
        ("wipe-disk", "storage-az1-0", ""),
        ("zone-loss", "az1", ""),
        ("zone-loss", "storage-az1-0", "storage-az1-0 is none of az1"),
        ("blackout", "az1", "it takes no --target"),
    ],
)
def test_a_victim_is_not_chosen_by_a_slip_of_the_pen(fault, target, reason):
    assert FAULTS[fault].why_not_target(CLUSTER, target) == reason


def test_flipped_bits_change_what_is_used(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"\1" * 1000 + bytes(5000))
    assert "bits in f" in flip_bits([path], random.Random(1))
    data = path.read_bytes()
    assert len(data) == 6000
    assert data[:1000] != b"\1" * 1000
    assert data[1000:] == bytes(5000)


def test_the_reason_of_a_full_disk_is_quoted():
    assert "No space left" in said_of_disk("a\nwrite failed: No space left on device\nb")
    assert said_of_disk("nothing") == ""


def test_every_fault_has_its_script_and_is_documented():
    scripts = {path.name for path in (ROOT / "deploy" / "chaos").iterdir()}
    assert scripts == {*FAULTS, "run"}
    text = (ROOT / "docs" / "chaos.md").read_text()
    for name in FAULTS:
        path = ROOT / "deploy" / "chaos" / name
        assert path.stat().st_mode & stat.S_IXUSR
        assert f'run" {name} "$@"' in path.read_text()
        assert f"| `{name}` |" in text
        subprocess.run(["sh", "-n", str(path)], check=True)
