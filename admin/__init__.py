"""The control plane and the `quorate` command.

Lives here: jobs that create and delete tables, placement, the local cluster's supervisor, status.
Never here: the data path. Read `cli.py` first, then `jobs.py`.
"""
