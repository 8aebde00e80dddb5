"""The wire between processes.

Lives here: the protobuf schemas and their generated code, the translation between them and the data
model, the framed link of the hot path (`frames.py`, `link.py`, `messages.py`) and the client side that
finds a partition group's leader over it. Never here: storage, consensus, request rules.
Read `messages.py` first.
"""
