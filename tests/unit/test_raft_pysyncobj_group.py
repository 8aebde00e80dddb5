"""The pin: raft runs on the reviewed source only, and reaches it without pickling."""

import pytest

from raft import pysyncobj_group


def test_the_reviewed_source_is_accepted():
    pysyncobj_group.check_source()


@pytest.mark.parametrize("attribute", ["REVIEWED_VERSION", "REVIEWED_SHA256"])
def test_any_other_source_is_refused(monkeypatch, attribute):
    monkeypatch.setattr(pysyncobj_group, attribute, "another")
    with pytest.raises(pysyncobj_group.UnreviewedSource, match="reviewed"):
        pysyncobj_group.check_source()


def test_a_peer_is_its_replica_id():
    peer = pysyncobj_group._peer(3)
    assert peer == 3
    assert hash(peer) == hash(3)
    assert peer.id == 3
    assert {peer: "x"}[3] == "x"
    assert isinstance(peer, pysyncobj_group.Node)
