"""The storage node: hosts replicas of partition groups and applies the log.

Lives here: the node's shell around raft, its services, healing and scrubbing. In rooms of their own: `engines/`
(ordered key-value stores), `replicas/` (the state machine, reads and writes of one partition), `snapshots/` (copies
of it) and `joining/` (the node and its cluster). Never here: HTTP or client-facing rules. Read
`replicas/replica.py` first, then `engines/engine.py`, `node.py` and `composition.py`.
"""
