"""AsynDM (asynchronous denoising, arXiv 2510.04504) for k-diffusion samplers.

The method's core is ``clock``, ``prompt``, ``models``, ``masks``, ``settings``, ``run``,
``samplers`` and ``pictures``. It imports torch, numpy and Pillow, and never a host. ``hosts``
connects it to a program that makes pictures, and ``interface`` is what a person sees in a WebUI.
``cli`` is the command line without a WebUI, with ``demo``, ``bench`` and ``evaluation`` behind it.
"""

__version__ = "0.1.0"
