"""Test-only extension: Forge Neo's language models in a tiny size.

It has their sizes in code, as dataclasses that its classes compare with their configurations.
"""

import functools
from importlib.util import find_spec

WIDTH, HEAD = 64, 32
SIZES = {
    "hidden_size": WIDTH,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
ROPES = {"Qwen25_7BVLI_Config": [4, 6, 6], "Qwen3VL_4BConfig": [6, 5, 5]}
LAYERS = [1, 2, 3]
"""The layers that Klein and Krea take, in place of some of 36."""
MODELS = {
    "Qwen3_06B": "Qwen3_06BConfig",
    "Qwen3_4B": "Qwen3_4BConfig",
    "Qwen3_8B": "Qwen3_8BConfig",
    "Qwen25_7BVLI": "Qwen25_7BVLI_Config",
    "Gemma2_2B": "Gemma2_2B_Config",
    "Ministral3_3B": "Ministral3_3BConfig",
    "Qwen3VL": "Qwen3VL_4BConfig",
}


def shrink():
    from backend.nn.llm import llama

    for model, config in MODELS.items():
        setattr(llama, config, tiny(getattr(llama, config), ROPES.get(config)))
        kind = getattr(llama, model)
        kind.__init__ = unchecked(kind.__init__)
    vision = llama.qwen_vl.Qwen2VLVisionTransformer
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_heads": 2}
    llama.qwen_vl.Qwen2VLVisionTransformer = lambda **_: vision(**sizes, output_hidden_size=WIDTH, num_layers=1)
    llama.QWEN3VL_VISION = {**llama.QWEN3VL_VISION, **sizes, "depth": 1, "deepstack_visual_indexes": [0]}
    widths = {"source_dim": WIDTH, "target_dim": WIDTH, "model_dim": WIDTH}
    llama.LLMAdapter = functools.partial(llama.LLMAdapter, **widths, num_layers=1, num_heads=2)


def tiny(config, rope):
    class Tiny(config):
        head_dim = HEAD
        rope_dims = rope or config.rope_dims

        def __init__(self):
            super().__init__(**SIZES)

    return Tiny


def unchecked(build):
    """``build`` without what its configuration file says."""
    return lambda self, config: build(self, {})


def take_layers():
    from backend.text_processing import klein_engine, qwen3vl_engine

    build = klein_engine.KleinTextProcessingEngine.__init__

    def init(self, *args, **kwargs):
        build(self, *args, **kwargs)
        self.intermediate_output = LAYERS

    klein_engine.KleinTextProcessingEngine.__init__ = init
    qwen3vl_engine.KREA2_TAP_LAYERS = LAYERS


if find_spec("backend") is not None and find_spec("backend.nn.llm") is not None:
    shrink()
    take_layers()
