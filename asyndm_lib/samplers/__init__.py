"""The samplers on a map of noise levels, one file per sampler."""
