"""Nothing to install: the extension uses what every supported WebUI already has.

It was run on AUTOMATIC1111 1.10.1 (82a973c0), Forge (dfdcbab6), Forge Neo 2.26 (5692d2d1), reForge
(3b56b268) and Forge Classic (1f95d717).
"""
