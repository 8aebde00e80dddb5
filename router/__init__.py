"""The request router: speaks HTTP and gRPC to clients, owns no data.

Lives here: validation, routing, writes and batches. In rooms of their own: one file per action (`operations/`), the
wire protocols' edge (`transports/`), Query and Scan (`paging/`), PartiQL (`statements/`). Never here: state that is
durable. Read `composition.py` first, then `dispatch.py` and `context.py`.
"""
