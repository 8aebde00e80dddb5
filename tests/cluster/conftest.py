"""Clusters of a test's own, and clients. The shared cluster is in tests/conftest.py."""

import pytest

from tests.cluster.harness import LocalCluster, running_cluster


@pytest.fixture
def own_cluster(tmp_path):
    """A cluster of the test's own, whose dead processes stay dead: break it as you like."""
    with running_cluster(tmp_path / "data", "--no-restart") as running:
        yield running


@pytest.fixture
def client(cluster: LocalCluster):
    """A boto3 client on the shared cluster."""
    return cluster.client()
