"""What the stand-ins take of the host's engine, by the names that it has in Forge.

Forge Classic has ComfyUI's engine.
"""

try:
    from backend.attention import attention_function
    from backend.memory_management import unload_model_clones
    from backend.patcher.base import set_model_options_patch_replace
    from backend.sampling.condition import compile_conditions
    from backend.sampling.sampling_function import calc_cond_uncond_batch
except ImportError:
    from ldm_patched.ldm.modules.attention import optimized_attention as attention_function
    from ldm_patched.modules.model_management import unload_model_clones
    from ldm_patched.modules.samplers import calc_cond_uncond_batch
    from modules_forge.forge_sampler import cond_from_a1111_to_patched_ldm as compile_conditions

    def set_model_options_patch_replace(options, patch, name, block, number):
        to = options["transformer_options"] = dict(options["transformer_options"])
        replaces = to["patches_replace"] = dict(to.get("patches_replace", {}))
        replaces[name] = {**replaces.get(name, {}), (block, number): patch}
        return options


def percent_to_sigma(unet, percent):
    model = unet.model
    return getattr(model, "predictor", getattr(model, "model_sampling", None)).percent_to_sigma(percent)


__all__ = [
    "attention_function",
    "calc_cond_uncond_batch",
    "compile_conditions",
    "percent_to_sigma",
    "set_model_options_patch_replace",
    "unload_model_clones",
]
