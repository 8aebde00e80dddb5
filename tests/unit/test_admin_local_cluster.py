"""The plan of a local cluster: names, zones, addresses, command lines."""

from itertools import count
from pathlib import Path

from admin.local_cluster import UpOptions, plan_cluster, process_environment, storage_names


def _plan(**options):
    ports = count(1001)
    names = []

    def reserve(name, host, wanted=0, *, shared=False):
        names.append((name, host, shared))
        return wanted or next(ports)

    plan = plan_cluster(
        UpOptions(data_dir=Path("/data"), **options), reserve, {"A": "b"}, "/cwd", ["quorate"]
    )
    return plan, names


def _flag(argv, name):
    return argv[argv.index(name) + 1]


def test_default_plan():
    plan, _ = _plan()
    assert plan.http == "http://127.0.0.1:8000"
    assert plan.grpc == "127.0.0.1:50051"
    assert [(p.name, p.role, p.az) for p in plan.processes] == [
        ("storage-az1-0", "storagenode", "az1"),
        ("storage-az2-0", "storagenode", "az2"),
        ("storage-az3-0", "storagenode", "az3"),
        ("admin-0", "admin", "az1"),
        ("router-0", "router", "az1"),
    ]
    storage, admin, router = plan.processes[0], plan.processes[3], plan.processes[4]
    links = [p.address for p in plan.processes[:3]]
    assert storage.argv[:2] == ["quorate", "storagenode"]
    assert _flag(storage.argv, "--initial-cluster") == ",".join(
        f"{p.name}@{p.az}={p.address}" for p in plan.processes[:3]
    )
    assert _flag(storage.argv, "--link-listen") == links[0]
    assert _flag(storage.argv, "--data-dir") == "/data/storage-az1-0"
    assert _flag(router.argv, "--catalog") == _flag(admin.argv, "--catalog") == ",".join(links)
    assert _flag(router.argv, "--http-listen") == router.address == "127.0.0.1:8000"
    assert _flag(admin.argv, "--grpc-listen") == admin.address == admin.grpc
    assert all(p.cwd == "/cwd" and p.env == {"A": "b"} for p in plan.processes)
    assert all(
        p.metrics == f"http://{_flag(p.argv, '--metrics-listen')}/metrics" for p in plan.processes
    )
    words = [word for p in plan.processes for word in p.argv]
    assert "--insecure" not in words
    assert "--no-fsync" not in words


def test_routers_share_their_ports_and_spread_over_zones():
    plan, names = _plan(routers=4, http_port=0, grpc_port=0)
    routers = [p for p in plan.processes if p.role == "router"]
    assert [p.az for p in routers] == ["az1", "az2", "az3", "az1"]
    assert len({p.address for p in routers}) == 1
    assert len({p.metrics for p in routers}) == 4
    assert [name for name, _, shared in names if shared] == ["http", "grpc"]


def test_storage_nodes_spread_over_zones():
    assert storage_names(5) == [
        ("storage-az1-0", "az1"),
        ("storage-az2-0", "az2"),
        ("storage-az3-0", "az3"),
        ("storage-az1-1", "az1"),
        ("storage-az2-1", "az2"),
    ]


def test_only_routers_listen_beyond_loopback():
    plan, names = _plan(host="0.0.0.0", insecure=True)
    assert plan.http == "http://127.0.0.1:8000"
    assert [name for name, host, _ in names if host != "127.0.0.1"] == ["http", "grpc"]
    assert [p.name for p in plan.processes if "--insecure" in p.argv] == ["router-0"]


def test_fsync_off_reaches_the_storage_nodes_only():
    plan, _ = _plan(fsync=False, log_format="json")
    assert {p.role for p in plan.processes if "--no-fsync" in p.argv} == {"storagenode"}
    assert {_flag(p.argv, "--log-format") for p in plan.processes} == {"json"}


def test_environment_lets_processes_find_the_packages():
    inherited = {"PYTHONPATH": "/mine"}
    environment = process_environment(inherited.get, coloured=False)
    first, _, rest = environment["PYTHONPATH"].partition(":")
    assert (Path(first) / "admin" / "local_cluster.py").exists()
    assert rest == "/mine"
    assert "FORCE_COLOR" not in environment
    assert process_environment(inherited.get, coloured=True)["FORCE_COLOR"] == "1"
