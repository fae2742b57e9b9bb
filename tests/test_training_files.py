"""The files of the training stages: each says what it is of, and none is taken for another."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_embedded_transformer import data

from asyndm_lib.demo import MODEL
from asyndm_lib.demo.training import dataset, denoiser, export, transformer
from asyndm_lib.demo.training.training import encoder_digest, load_weights
from asyndm_lib.errors import AsynDMError


@pytest.fixture
def parts(tmp_path):
    """The embedded model taken apart, and a copy of it to export to."""
    shutil.copytree(MODEL.parent, tmp_path / "model")
    settings = export.SplitSettings(tmp_path / "vae.st", tmp_path / "unet.st", tmp_path / "model")
    export.split(settings)
    return export.Settings(settings.autoencoder, settings.denoiser, settings.model)


def with_encoder(path, digest):
    save_file({**load_file(path), "encoder": digest}, path)


def test_a_model_taken_apart_is_put_together_again(parts, capsys):
    with_encoder(parts.denoiser, encoder_digest(load_file(parts.autoencoder)))
    export.run(parts)
    again, first = load_file(parts.model / "emoji.safetensors"), load_file(MODEL)
    assert again.keys() == first.keys()
    assert all(torch.equal(again[name], first[name].half()) for name in first)


def test_a_denoiser_of_another_encoders_latents_is_refused(parts):
    with_encoder(parts.denoiser, torch.zeros(32, dtype=torch.uint8))
    with pytest.raises(AsynDMError, match=r"unet\.st was trained on latents of another encoder than that of .*vae\.st"):
        export.run(parts)


def test_the_decoder_alone_does_not_change_whose_latents_they_are(parts):
    weights = load_file(parts.autoencoder)
    before = encoder_digest(weights)
    weights["vae.decoder.conv_in.weight"] += 1
    assert torch.equal(encoder_digest(weights), before)
    weights["vae.encoder.conv_in.weight"] += 1
    assert not torch.equal(encoder_digest(weights), before)


def test_the_transformer_is_trained_on_its_own_models_latents_only(parts):
    settings = SimpleNamespace(data=parts.denoiser, model=parts.model)
    own = encoder_digest(load_file(parts.autoencoder))
    transformer.refuse_others_latents(SimpleNamespace(encoder=own), settings)
    transformer.refuse_others_latents(SimpleNamespace(encoder=None), settings)
    with pytest.raises(AsynDMError, match="is of another encoder"):
        transformer.refuse_others_latents(SimpleNamespace(encoder=own + 1), settings)


def test_training_hands_on_whose_latents_they_were(tmp_path):
    data(tmp_path)
    content = torch.load(tmp_path / "data.pt", weights_only=True)
    torch.save({**content, "encoder": torch.arange(32, dtype=torch.uint8)}, tmp_path / "data.pt")
    assert dataset.Data.load(tmp_path / "data.pt", torch.device("cpu")).encoder.tolist() == list(range(32))
    settings = denoiser.Settings(
        tmp_path / "data.pt", tmp_path / "unet.st", MODEL.with_suffix(".yaml"), MODEL.parent / "tokenizer",
        iterations=1, batch=2, compile=False, device="cpu",
    )  # fmt: skip
    denoiser.train(settings)
    assert load_file(tmp_path / "unet.st")["encoder"].tolist() == list(range(32))


def test_swapped_files_are_named(parts):
    swapped = export.Settings(parts.denoiser, parts.denoiser, parts.model)
    with pytest.raises(AsynDMError, match="holds no scale_factor: it is of another stage"):
        export.run(swapped)
    module = torch.nn.Linear(1, 1)
    with pytest.raises(AsynDMError, match=r"holds no weights net\.…"):
        load_weights({"net": module}, parts.denoiser)
