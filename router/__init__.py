"""The request router: speaks HTTP and gRPC to clients, owns no data.

Lives here: the wire protocol's edge, validation, routing, one file per operation. Never here: durable
state. Read `composition.py` first, then `dispatch.py`.
"""
