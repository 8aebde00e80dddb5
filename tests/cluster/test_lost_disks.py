"""Disks that are lost under load: real processes, kill -9, an emptied data directory."""

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import plyvel
import pytest

from storagenode.engines import leveldb_log
from tests.cluster.fault_table import (
    TABLE,
    assert_linearizable,
    create_table,
    get,
    put,
    wait_writable,
)
from tests.cluster.harness import (
    LocalCluster,
    data_directory,
    http_get,
    is_alive,
    is_whole,
    node_id,
    running_cluster,
    scrub,
    signal_pid,
    wait_until,
)
from tests.cluster.workload import Answer, WireClient, Workload
from tests.damage import harm
from tests.damage.tables import regions


def test_an_emptied_disk_is_whole_again_by_itself_under_load(own_cluster: LocalCluster):
    create_table(own_cluster)
    client = WireClient(own_cluster.http)
    for n in range(300):
        put(client, f"before-{n}", n)
    victim = wait_until(lambda: own_cluster.leader_of(0), 10, "a catalog leader")
    lost = {node_id(own_cluster, victim)}
    with Workload(lambda: own_cluster.http, TABLE, clients=4, keys=12, seed=11) as load:
        time.sleep(1.5)
        own_cluster.kill(victim)
        shutil.rmtree(data_directory(own_cluster, victim))
        own_cluster.restart(victim)
        began = time.monotonic()
        wait_until(lambda: is_whole(own_cluster, lost), 60, "whole again", 0.5)
        print(f"whole again after {time.monotonic() - began:.1f} s")
        time.sleep(1.0)
        # The other old disks in turn: only what was rebuilt can keep the majority now.
        other = next(p["name"] for p in own_cluster.processes("storagenode") if p["name"] != victim)
        own_cluster.kill(other)
        wait_writable(own_cluster, 40)
        own_cluster.restart(other)
    wait_writable(own_cluster, 40)
    load.read_back()
    assert sum(map(len, load.histories.values())) > 200
    assert_linearizable(load)
    for n in range(300):
        assert get(client, f"before-{n}") == n
    # The catalog takes part: tables can still be made.
    client.call(
        "CreateTable",
        TableName="after",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    wait_until(
        lambda: client.call("DescribeTable", TableName="after")["Table"]["TableStatus"] == "ACTIVE",
        30,
        "table active",
    )
    client.close()


def flip_bytes(file: Path, offset: int, count: int = 64) -> None:
    with file.open("r+b") as opened:
        opened.seek(offset)
        data = opened.read(count)
        opened.seek(offset)
        opened.write(bytes(byte ^ 0xFF for byte in data))


def damage_engine(directory: Path) -> None:
    tables = sorted((directory / "engine").glob("*.ldb"))
    assert tables, "a stop leaves a checkpoint"
    for table in tables:
        flip_bytes(table, table.stat().st_size // 3)


def damage_log(directory: Path) -> None:
    segment = min((directory / "log").iterdir())
    flip_bytes(segment, 4096)


def damage_identity(directory: Path) -> None:
    flip_bytes(directory / "node.json", 30, 1)


def lose_identity(directory: Path) -> None:
    (directory / "node.json").unlink()


def damage_manifest(directory: Path) -> None:
    """The length of its last record: LevelDB alone would go back to an older version without a word."""
    (manifest,) = (directory / "engine").glob("MANIFEST-*")
    data = manifest.read_bytes()
    ends = [0, *(end for end, _, _ in leveldb_log._records(data))]
    flip_bytes(manifest, ends[-2] + 5, 1)


@pytest.mark.parametrize(
    "damage", [damage_engine, damage_log, damage_manifest, damage_identity, lose_identity]
)
def test_damage_is_found_and_repaired_and_never_served(
    own_cluster: LocalCluster, damage: Callable[[Path], None]
):
    create_table(own_cluster)
    client = WireClient(own_cluster.http)
    for n in range(400):
        put(client, f"before-{n}", n)
    victim = "storage-az1-0"  # of the router's zone: eventually consistent reads go there
    directory = data_directory(own_cluster, victim)
    old = node_id(own_cluster, victim)
    signal_pid(own_cluster.process(victim)["pid"], signal.SIGTERM)
    wait_until(lambda: not is_alive(own_cluster.process(victim)["pid"]), 20, "stopped")
    damage(directory)
    own_cluster.restart(victim)

    def repaired() -> bool:
        for n in range(0, 400, 7):
            assert get(client, f"before-{n}", strong=False) == n
        return node_id(own_cluster, victim) not in ("", old) and is_whole(own_cluster, {old})

    wait_until(repaired, 90, "found and repaired", 0.3)
    assert (directory.parent / f"{directory.name}.damaged-1" / "damaged").exists()
    for n in range(400):
        assert get(client, f"before-{n}") == n
    client.close()


def test_damage_to_all_disks_at_once_does_not_end_in_an_empty_cluster(own_cluster: LocalCluster):
    """Whatever it was that made all nodes believe it: what was set aside can be put back."""
    create_table(own_cluster)
    client = WireClient(own_cluster.http)
    for n in range(50):
        put(client, f"before-{n}", n)
    client.close()
    names = [process["name"] for process in own_cluster.processes("storagenode")]
    directories = [data_directory(own_cluster, name) for name in names]
    for name in names:
        own_cluster.kill(name)
    for directory in directories:
        damage_identity(directory)
    for name in names:
        own_cluster.restart(name)
    wait_until(lambda: own_cluster.log().count("it founds no new cluster") >= 3, 30, "all wait")
    time.sleep(2.5)  # they ask one another every second
    for directory in directories:
        assert json.loads((directory / "node.json").read_text())["cluster_id"] == ""
    for name in names:
        own_cluster.kill(name)
    for directory in directories:
        aside = directory.parent / f"{directory.name}.damaged-1"
        shutil.rmtree(directory)
        (aside / "damaged").unlink()
        aside.rename(directory)
        damage_identity(directory)  # the same bits again
    for name in names:
        own_cluster.restart(name)
    wait_writable(own_cluster, 40)
    client = WireClient(own_cluster.http)
    for n in range(50):
        assert get(client, f"before-{n}") == n
    client.close()


@pytest.mark.parametrize("is_cached", [False, True])
def test_bits_flipped_in_the_engines_files_of_a_running_node_are_never_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_cached: bool
):
    """Open and in use: reads and scrubbing find it, or, what is in memory altogether, the check of the files; and
    the disk is rebuilt.
    """
    monkeypatch.setenv("QUORATE_SCRUB_INTERVAL", "0" if is_cached else "5")
    with running_cluster(tmp_path / "data", "--no-restart") as cluster:
        create_table(cluster)
        client = WireClient(cluster.http)
        for n in range(400):
            put(client, f"before-{n}", n)
        victim = "storage-az1-0"
        directory = data_directory(cluster, victim)
        old = node_id(cluster, victim)
        cluster.terminate(victim)  # which leaves a checkpoint
        cluster.restart(victim)
        cluster.wait_process_ready(victim)
        tables = sorted((directory / "engine").glob("*.ldb"))
        assert tables
        for n in range(0, 400, 1 if is_cached else 20):
            assert get(client, f"before-{n}", strong=False) == n
        if is_cached:
            time.sleep(12)  # every table was read once, as a file
        for table in tables:
            # A filter of zeros would hide every item, were it read from the file again.
            place = regions(table.read_bytes())["filter"]
            harm.overwrite(place.start, bytes(len(place)), "zeros").do_in_place(table)
            for offset in range(100, table.stat().st_size - 100, 3000):
                flip_bytes(table, offset, 1)
        pid = cluster.pid(victim)

        def repaired() -> bool:
            for n in range(0, 400, 7):
                try:
                    assert get(client, f"before-{n}", strong=False) == n
                except Answer as answer:
                    # While the disk is rebuilt a busy machine may be late, but nothing false is ever said.
                    assert answer.status == 503
                    return False
            status, text = http_get(cluster.process(victim)["metrics"])
            found = status and "quorate_storagenode_scrub_mismatches_total 0.0" not in text
            return bool(found or node_id(cluster, victim) != old) and is_whole(cluster, {old})

        wait_until(repaired, 120, "found and repaired", 0.3)
        assert is_alive(pid), "it starts again by itself, in place"
        aside = directory.parent / f"{directory.name}.damaged-1"
        reason = (aside / "damaged").read_text()
        assert "mismatch" in reason or "is not what it was" in reason
        assert "the disk is damaged" in cluster.log()
        for n in range(400):
            assert get(client, f"before-{n}", strong=False) == n
            assert get(client, f"before-{n}") == n
        client.close()


def metric(cluster: LocalCluster, name: str) -> float:
    """Sum over all storage nodes."""
    return sum(
        float(line.split()[1])
        for process in cluster.processes("storagenode")
        for line in http_get(process["metrics"])[1].splitlines()
        if line.startswith(name + " ")
    )


def test_a_record_that_is_whole_and_wrong_is_found_by_scrubbing_and_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("QUORATE_SCRUB_INTERVAL", "3")
    with running_cluster(tmp_path / "data", "--no-restart") as cluster:
        create_table(cluster, partitions=1)
        client = WireClient(cluster.http)
        for n in range(100):
            put(client, f"before-{n}", n)
        victim = "storage-az1-0"
        signal_pid(cluster.process(victim)["pid"], signal.SIGTERM)
        wait_until(lambda: not is_alive(cluster.process(victim)["pid"]), 20, "stopped")
        engine = plyvel.DB(str(data_directory(cluster, victim) / "engine"))
        # Table ids of users begin at 256.
        first, second, *_ = engine.iterator(start=b"d" + (256).to_bytes(8, "big"), stop=b"e")
        engine.put(first[0], second[1])
        engine.close()
        cluster.restart(victim)
        wait_until(
            lambda: metric(cluster, "quorate_storagenode_replicas_repaired_total") >= 1,
            60,
            "found and repaired",
            0.3,
        )
        assert metric(cluster, "quorate_storagenode_scrub_mismatches_total") >= 1
        wait_until(lambda: is_whole(cluster, set()), 30, "whole", 0.3)
        for n in range(100):
            assert get(client, f"before-{n}", strong=False) == n
            assert get(client, f"before-{n}") == n
        client.close()


def test_an_operator_has_the_replicas_compared_and_the_wrong_one_repaired(
    own_cluster: LocalCluster,
):
    cluster = own_cluster
    create_table(cluster, partitions=2)
    client = WireClient(cluster.http)
    for n in range(50):
        put(client, f"k-{n}", n)
    status, text = scrub(cluster)
    assert (status, "3 partitions compared, 3 of them the same") == (0, text.splitlines()[-1][:41])
    victim = "storage-az1-0"
    cluster.terminate(victim)
    engine = plyvel.DB(str(data_directory(cluster, victim) / "engine"))
    first, second, *_ = engine.iterator(start=b"d" + (256).to_bytes(8, "big"), stop=b"e")
    engine.put(first[0], second[1])
    engine.close()
    cluster.restart(victim)
    cluster.wait_process_ready(victim)
    status, text = scrub(cluster, "--table", TABLE)
    assert status == 1
    assert f"on {node_id(cluster, victim)} differs and is repaired" in text
    wait_until(lambda: scrub(cluster, "--table", TABLE)[0] == 0, 60, "repaired", 0.5)
    for n in range(50):
        assert get(client, f"k-{n}", strong=False) == n
    assert scrub(cluster, "--table", "none") == (
        1, f"quorate: the admin process at {cluster.processes('admin')[0]['grpc']}: there is no table none\n",
    )  # fmt: skip
    client.close()
