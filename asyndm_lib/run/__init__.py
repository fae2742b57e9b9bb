"""One sampling run: its steps, its model calls, and what it needs of its host.

See docs/METHOD.md, section 3.
"""
