"""The parts that model families are made of: time per pixel, token maps, hooks and patches."""
