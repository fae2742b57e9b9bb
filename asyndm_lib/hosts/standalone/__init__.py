"""A host of its own, without a WebUI: Stable Diffusion checkpoints by the ``ldm`` package."""
