"""AsynDM (asynchronous denoising, arXiv 2510.04504) for k-diffusion samplers.

The modules of this folder are the method's core: they import torch and numpy, and never a host.
``hosts`` connects the core to a program that makes pictures, ``interface`` is what a person sees
in a WebUI, ``demo`` is the command line with its embedded model.
"""

__version__ = "0.1.0"
