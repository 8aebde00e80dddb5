"""What the service answers, as transcripts: requests and their exact answers, runnable on any endpoint.

`<operation>/<rules>.txt` hold the cases, `transcripts.py` reads them, `matching.py` compares answers,
`transports.py` speaks HTTP and gRPC, `tables.py` has the tables that cases share, `runner.py` runs a case and
`test_corpus.py` all of them. Read docs/conformance.md first.
"""
