"""Nothing to install: the extension uses what every supported WebUI already has."""
