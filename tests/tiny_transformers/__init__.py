"""Tiny transformers of random weights, as checkpoints that a WebUI loads, made of its own classes.

    cd tests && WEBUI/venv/bin/python -m tiny_transformers HOST WEBUI MODELS

``HOST`` is a module of this package. The WebUI's own Python runs it, since the shapes come from the
WebUI's classes. What a WebUI has in code and not from the weights, such as the width of Flux, goes
with a checkpoint as the tensor :data:`weights.SIZES`, which the test-only extension
``tiny_configurations`` reads. Forge Neo has the sizes of its language models in code too: see that
extension's ``tiny_language_models``.
"""
