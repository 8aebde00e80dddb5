"""Query and Scan: what a page request asks for, and the pages of items and indexes that answer it.

Never here: PartiQL (see `statements/`), an operation's own checks. Read `page_requests.py` first, then
`item_pages.py`.
"""
