"""The cost of the method in time and memory: ``python -m asyndm_lib bench``."""
