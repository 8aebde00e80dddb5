"""PartiQL statements on the cluster: writes and reads of one item, and SELECTs page by page.

Never here: syntax (`datamodel/partiql/`). Read `statements.py` first, then `statement_pages.py`.
"""
