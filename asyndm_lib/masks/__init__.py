"""Masks from token maps: which pixels lag in a step, and how strongly.

See docs/METHOD.md, section 2.
"""
