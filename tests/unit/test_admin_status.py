"""What `quorate status` shows."""

import io
import json
from concurrent import futures

import grpc
import pytest

from admin.cluster_file import DEAD, RUNNING, ClusterFile, ProcessEntry
from admin.status import render_status, show_status, status_as_dict
from proto import admin_pb2, admin_pb2_grpc

NODES = [
    admin_pb2.Node(
        node_id=f"storage-{az}-0.ab",
        name=f"storage-{az}-0",
        az=az,
        address="127.0.0.1:1",
        is_reachable=az != "az3",
        error="" if az != "az3" else "deadline exceeded",
        replicas=2,
        leaders=1,
        is_current=True,
    )
    for az in ("az1", "az2", "az3")
]


def _replicas(leader: int):
    return [
        admin_pb2.ReplicaState(
            replica_id=n,
            node_id=f"storage-az{n}-0.ab",
            node_name=f"storage-az{n}-0",
            az=f"az{n}",
            role="leader" if n == leader else "follower" if n < 3 else "unreachable",
            term=4,
            commit_index=107,
            applied_index=107 - n,
            lag_entries=n if n < 3 else -1,
        )
        for n in (1, 2, 3)
    ]


STATUS = admin_pb2.ClusterStatusResponse(
    cluster_id="c1",
    nodes=NODES,
    tables=[
        admin_pb2.Table(
            name="orders",
            table_id=256,
            status="ACTIVE",
            billing_mode="PAY_PER_REQUEST",
            partitions=1,
            partitions_with_leader=1,
            item_count=5_000_000_000,
            size_bytes=70,
        )
    ],
    partitions=[
        admin_pb2.PartitionState(group=0, replicas=_replicas(1)),
        admin_pb2.PartitionState(
            group=5,
            table_id=256,
            table_name="orders",
            start=b"\x01\x00",
            end=b"\x02",
            leader_node_name="storage-az2-0",
            replicas=_replicas(2),
        ),
        admin_pb2.PartitionState(group=6, table_name="going", replicas=[]),
    ],
    jobs=[
        admin_pb2.Job(job_id="j1", kind="delete_table", step="close_replicas", table_name="going")
    ],
    acting_admin="admin-0",
)

CLUSTER = ClusterFile(
    "http://127.0.0.1:8000",
    "127.0.0.1:50051",
    1,
    [
        ProcessEntry("router-0", "router", "az1", 17, "127.0.0.1:8000", "m", "g", state=RUNNING),
        ProcessEntry("admin-0", "admin", "az1", 18, "127.0.0.1:9", "m", "g", state=DEAD),
    ],
)


def test_a_persons_view():
    text = render_status(STATUS, CLUSTER)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "cluster c1: NOT HEALTHY" in lines
    assert "the catalog does not answer: tables and jobs are as last known" in lines
    assert "router-0 router az1 17 127.0.0.1:8000" in lines
    assert "admin-0 admin az1 dead 127.0.0.1:9" in lines
    assert (
        "storage-az3-0 az3 127.0.0.1:1 2 1 unreachable: deadline exceeded storage-az3-0.ab" in lines
    )
    assert "orders ACTIVE PAY_PER_REQUEST 1 1 5000000000 70" in lines
    assert "0 (catalog) 1 storage-az1-0 az1 leader 4 107 106 1" in lines
    assert "5 orders 3 storage-az3-0 az3 unreachable 4 107 104 ?" in lines
    assert "j1 delete_table close_replicas going" in lines
    assert text.endswith("\n")
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_a_programs_view():
    view = json.loads(json.dumps(status_as_dict(STATUS, CLUSTER)))
    (table,) = view["tables"]
    assert table["item_count"] == 5_000_000_000
    (partition,) = table["partitions"]
    assert (partition["group"], partition["start"]) == (5, "0100")
    assert [replica["lag"] for replica in partition["replicas"]] == [1, 2, None]
    assert [replica["az"] for replica in partition["replicas"]] == ["az1", "az2", "az3"]
    assert [part["group"] for part in view["catalog"]] == [0]
    assert [part["group"] for part in view["other_partitions"]] == [6]
    assert view["endpoints"] == {"http": "http://127.0.0.1:8000", "grpc": "127.0.0.1:50051"}
    assert [process["state"] for process in view["processes"]] == ["running", "dead"]
    assert view["is_healthy"] is False
    assert view["nodes"][2]["error"] == "deadline exceeded"


def test_an_empty_answer():
    text = render_status(admin_pb2.ClusterStatusResponse())
    assert "cluster (not formed yet): NOT HEALTHY" in text
    assert status_as_dict(admin_pb2.ClusterStatusResponse(), None)["tables"] == []


class Admin(admin_pb2_grpc.AdminServiceServicer):
    def ClusterStatus(self, request, context):  # noqa: N802  # named by the schema
        return STATUS


@pytest.fixture
def admin_address():
    server = grpc.server(futures.ThreadPoolExecutor(1))
    admin_pb2_grpc.add_AdminServiceServicer_to_server(Admin(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize("as_json", [True, False])
def test_show_status(admin_address, as_json):
    out, err = io.StringIO(), io.StringIO()
    assert show_status(admin_address, None, as_json=as_json, out=out, err=err) == 0
    assert out.getvalue().startswith("{" if as_json else "cluster c1")
    assert err.getvalue() == ""


def test_show_status_without_an_answer():
    out, err = io.StringIO(), io.StringIO()
    assert show_status("127.0.0.1:1", None, as_json=False, out=out, err=err) == 1
    assert "the admin process at 127.0.0.1:1 does not answer" in err.getvalue()
    assert out.getvalue() == ""
