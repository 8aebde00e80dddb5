"""What the service answers, as transcripts: requests and their exact answers, runnable on any endpoint.

`<operation>/<rules>.txt` hold the cases (the format is described in docs/conformance.md), `transcripts.py` reads
them, `matching.py` compares answers, `transports.py` speaks HTTP and gRPC, `tables.py` has the tables that cases
share, `test_corpus.py` runs everything. Read docs/conformance.md first.
"""
