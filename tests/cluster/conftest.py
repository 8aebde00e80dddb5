"""One shared cluster for the tests that do not break it."""

import pytest

from tests.cluster.harness import LocalCluster, running_cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory):
    """A healthy three-zone cluster, shared: tests use tables of their own and leave it whole."""
    with running_cluster(tmp_path_factory.mktemp("cluster") / "data") as running:
        yield running


@pytest.fixture
def own_cluster(tmp_path):
    """A cluster of the test's own, whose dead processes stay dead: break it as you like."""
    with running_cluster(tmp_path / "data", "--no-restart") as running:
        yield running


@pytest.fixture
def client(cluster: LocalCluster):
    """A boto3 client on the shared cluster."""
    return cluster.client()
