"""The clock of every pixel: how far its denoising has come, and the noise level that this means.

See docs/METHOD.md, section 1.
"""
