"""Methods compared on prompt sets: whose pictures follow their prompts? ``python -m asyndm_lib
evaluate``."""
