"""The storage node: hosts replicas of partition groups and applies the log.

Lives here: the replica's state machine, the engine, the node's shell around raft. Never here: HTTP or
client-facing rules. Read `replica.py` first, then `engine.py` and `composition.py`.
"""
