"""Whole clusters in one process under a seed. Read `world.py` first, then `checkers.py`."""
