"""What the method costs in time and memory: ``python -m asyndm_lib bench``."""
