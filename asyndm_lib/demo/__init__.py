"""The command line, and the embedded model that it draws with."""
