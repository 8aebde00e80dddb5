"""Engines: ordered key-value stores of a node, on disk (LevelDB) or in memory.

Lives here: the interface, both engines, and what is known of LevelDB's files. Never here: a partition, an item,
raft. Read `engine.py` first: it says what every engine promises.
"""
