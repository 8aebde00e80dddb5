"""The edge: HTTP/1.1 and gRPC connections, heads, bodies and how answers are rendered.

Lives here: bytes of clients. Never here: what an operation means, a storage node. Read `http_server.py` first, then
`http_connection.py` and `grpc_server.py`.
"""
