"""A node and its cluster: the first start, registering, watching the catalog, leaving in good order.

Lives here: what a node does about itself. Never here: what it does for clients. Read `bootstrap.py` first, then
`joining.py`.
"""
