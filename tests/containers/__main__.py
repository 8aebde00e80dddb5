"""Build the image, bring the compose deployment up on a real container engine, use it, break it, take it down.

Finds docker or podman with compose; without one it says so and does nothing. Everything has a name of its own, so
nothing else on the engine is touched, and everything but the build's cache is removed in the end. Exit status 0:
all of it held.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import boto3
from botocore.config import Config

from tests.chaos.__main__ import end_once
from tests.chaos.__main__ import main as play_chaos
from tests.chaos.containers import ContainerCluster, Engine, find_engine
from tests.cluster.fault_table import create_table, get, put
from tests.cluster.harness import CREDENTIALS, ROOT, wait_until
from tests.cluster.workload import Answer, WireClient
from tests.containers.compose import DOCKERFILE, derived, free_ports, load, port_count, write

BUILD_S = 900.0
UP_S = 180.0
BACK_S = 60.0
FAULTS = (
    "kill",
    "kill-leader",
    "pause",
    "partition",
    "restart",
    "rolling-restart",
    "zone-loss",
    "blackout",
)


def smoke(cluster: ContainerCluster) -> str:
    """What a first script does, through each router."""
    done = 0
    for router in cluster.processes("router"):
        config = Config(retries={"mode": "standard"})
        dynamodb = boto3.resource(
            "dynamodb", endpoint_url=router["http"], **CREDENTIALS, config=config
        )
        table = dynamodb.create_table(
            TableName=f"smoke-{router['name']}",
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "N"},
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        table.wait_until_exists()
        with table.batch_writer() as batch:
            for number in range(60):
                batch.put_item(Item={"pk": f"p{number % 3}", "sk": number, "n": number})
        table.put_item(Item={"pk": "one", "sk": 1})
        assert table.get_item(Key={"pk": "one", "sk": 1})["Item"] == {"pk": "one", "sk": 1}
        page = table.query(
            KeyConditionExpression="pk = :p AND sk >= :s",
            ExpressionAttributeValues={":p": "p1", ":s": 31},
        )
        assert [int(item["sk"]) for item in page["Items"]] == list(range(31, 60, 3))
        assert table.scan(Select="COUNT")["Count"] == 61
        try:
            table.put_item(
                Item={"pk": "one", "sk": 1}, ConditionExpression="attribute_not_exists(pk)"
            )
        except dynamodb.meta.client.exceptions.ConditionalCheckFailedException:
            pass
        else:
            raise AssertionError("a condition that does not hold was taken for one that does")
        table.delete_item(Key={"pk": "one", "sk": 1})
        assert "Item" not in table.get_item(Key={"pk": "one", "sk": 1})
        table.delete()
        table.wait_until_not_exists()
        done += 1
    return f"{done} routers"


def outlive(cluster: ContainerCluster, key: str, harm: Callable[[], None]) -> str:
    """Put, one after the other, while `harm` is done and until the cluster is whole; then read everything back."""
    client = WireClient(cluster.http, timeout_s=10)
    acknowledged: list[int] = []
    failed = 0
    is_over = threading.Event()

    def put_on() -> None:
        nonlocal failed
        while not is_over.is_set():
            number = len(acknowledged) + failed
            try:
                put(client, f"{key}-{number}", number)
            except (Answer, OSError):
                failed += 1
            else:
                acknowledged.append(number)

    writer = threading.Thread(target=put_on, daemon=True)
    writer.start()
    try:
        wait_until(lambda: len(acknowledged) >= 10, BACK_S, "puts before the fault", 0.05)
        before = len(acknowledged) + failed
        harm()
        tried = len(acknowledged) + failed - before
        wait_until(cluster.is_ready, BACK_S, "the cluster is whole again", 0.1)
        after = len(acknowledged)
        wait_until(lambda: len(acknowledged) >= after + 10, BACK_S, "puts after the fault", 0.05)
    finally:
        is_over.set()
        writer.join(30)
    assert not writer.is_alive(), "a put did not end"
    assert tried > 0, "nothing was put during the fault"
    lost = [number for number in acknowledged if get(client, f"{key}-{number}") != number]
    client.close()
    assert not lost, f"acknowledged and gone: {lost[:10]}"
    return (
        f"{len(acknowledged)} puts acknowledged, none lost, {failed} failed without a retry; "
        f"{tried} of them during the fault"
    )


def crash(cluster: ContainerCluster, name: str) -> None:
    """The process dies by itself, as the engine sees it: its restart policy brings it back."""
    pid = cluster.process(name)["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: cluster.is_ready() and cluster.process(name)["pid"] != pid,
        BACK_S,
        f"{name} started again by the engine",
        0.3,
    )


def script(cluster: ContainerCluster, name: str) -> None:
    """One of the scripts that people have, against the containers."""
    words = [str(ROOT / "deploy" / "chaos" / name), "--compose", cluster.project, "--rounds", "1"]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(words, env=environment, check=False, timeout=300)
    assert done.returncode == 0, f"deploy/chaos/{name} ended with {done.returncode}"


def step(what: str, work: Callable[[], object]) -> None:
    """Do one thing and say how it went."""
    began = time.monotonic()
    said = work()
    note = f": {said}" if isinstance(said, str) and said else ""
    print(f"{time.monotonic() - began:6.1f} s  {what}{note}", flush=True)


def run(engine: Engine, options: argparse.Namespace, directory: Path) -> int:
    """All of it; returns the exit status."""
    project = f"quorate-test-{os.getpid()}"
    image = f"{project}:latest"
    source = load()
    file = write(directory / "compose.yml", derived(source, image, free_ports(port_count(source))))
    compose = ("--project-name", project, "--file", str(file))
    cluster = ContainerCluster(engine, project)
    build = ["build", "--file", str(DOCKERFILE), "--tag", image]
    build += ["--network", options.build_network] if options.build_network else []

    def up() -> None:
        engine.run_compose(*compose, "up", "--detach", "--no-build", timeout_s=UP_S)
        cluster.start(UP_S)

    def replace(name: str) -> None:
        """Another container, perhaps at another address, on the same volume."""
        engine.run("rm", "--force", cluster.process(name)["container"])
        up()

    try:
        step("the image is built", lambda: engine.run(*build, str(ROOT), timeout_s=BUILD_S)[:0])
        step("the cluster is up", up)
        step("boto3 works", lambda: smoke(cluster))
        create_table(cluster)
        first, second, third = (node["name"] for node in cluster.processes("storagenode"))
        step(
            f"{first} is replaced by a new container",
            lambda: outlive(cluster, "replaced", lambda: replace(first)),
        )
        if os.geteuid() == 0 and cluster.process(second)["pid"]:
            step(
                f"{second} crashes and the engine starts it again",
                lambda: outlive(cluster, "crashed", lambda: crash(cluster, second)),
            )

        def cut() -> None:
            with cluster.cut_off(third):
                time.sleep(5.0)

        step(f"{third} loses its network", lambda: outlive(cluster, "cut", cut))
        step("a script of deploy/chaos", lambda: script(cluster, "kill-leader"))
        chaos = ["--compose", project, "--rounds", str(options.rounds), *FAULTS]
        if options.seed:
            chaos += ["--seed", str(options.seed)]
        status = play_chaos(chaos)
        print(
            "verdict: the deployment held" if not status else f"verdict: chaos ended with {status}"
        )
        return status
    finally:
        down = [*compose, "down", "--volumes", "--timeout", "10"]
        step("everything is removed", lambda: engine.run_compose(*down)[:0])
        subprocess.run([engine.command, "rmi", "--force", image], capture_output=True, check=False)


def main(argv: list[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.containers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="how often each fault (1)")
    parser.add_argument("--seed", type=int, default=0, help="of faults and victims; 0 picks one")
    parser.add_argument(
        "--build-network",
        default="",
        help="network of the build, such as `host` (the engine's own)",
    )
    options = parser.parse_args(argv)
    engine = find_engine()
    if isinstance(engine, str):
        print(f"skipped: no container engine here ({engine})")
        return 0
    end_once()
    print(f"engine: {engine.command}, {' '.join(engine.compose)}")
    with tempfile.TemporaryDirectory(prefix="quorate-containers-") as directory:
        return run(engine, options, Path(directory))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
