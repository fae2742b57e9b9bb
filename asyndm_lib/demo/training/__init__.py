"""The training of the embedded model: scenes of emoji, autoencoder, denoiser, export, evaluation.

``python -m asyndm_lib.demo.training --help`` lists the stages; README.md beside this file walks
through them. The extension itself imports nothing from here.
"""
