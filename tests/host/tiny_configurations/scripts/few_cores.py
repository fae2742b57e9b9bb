"""A test-only extension for machines of few cores.

Forge's soft inpainting divides its work among two processor cores fewer than there are. With too
few it shows the start picture alone. Here it believes in more cores, and works on one.
"""

from modules import script_callbacks, scripts


def one_after_the_other(**_):
    return lambda tasks: [function(*args, **kwargs) for function, args, kwargs in tasks]


def repair(*_):
    for data in scripts.scripts_data:
        if hasattr(data.module, "weighted_histogram_filter") and hasattr(data.module, "cpu_count"):
            data.module.cpu_count = lambda: 8
            data.module.Parallel = one_after_the_other


script_callbacks.on_app_started(repair)
