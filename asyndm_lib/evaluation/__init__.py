"""Does it follow the prompt better? Methods compared on prompt sets: ``python -m asyndm_lib evaluate``."""
