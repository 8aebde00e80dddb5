"""A replicated log of opaque bytes, on pysyncobj's consensus core.

Lives here: consensus, the node's durable log, leases, snapshots' protocol, the multi-group host.
Never here: a DynamoDB word, a socket, a wall clock. Read `group.py` first (the interface), then
`host.py` (the turn) and `guard.py` (the rules that make the core safe).
"""
