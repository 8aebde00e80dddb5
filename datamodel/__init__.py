"""What a DynamoDB value, key, item, expression, table and failure *are*.

Lives here: pure values and functions of their arguments. Never here: I/O, clocks, randomness,
sockets, threads. Read `items.py` first, then `key_encoding.py` and `expressions/`.
"""
