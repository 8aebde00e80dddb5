"""Copies of a replica's state: taking them, sending them to another node, receiving and installing them.

Never here: the decision that a copy is needed (raft's, or `healing.py`'s). Read `snapshots.py` first, then
`snapshot_sending.py` and `snapshot_receiving.py`.
"""
