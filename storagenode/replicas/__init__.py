"""A replica of one partition: the state machine over the log, and the reads and writes of its leader.

Lives here: what happens between a request and its answer on one partition. Never here: a socket, another node, a
file. Read `replica.py` first, then `log_entries.py`, `writing.py` and `reading.py`.
"""
