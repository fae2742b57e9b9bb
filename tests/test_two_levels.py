"""Training the embedded UNet on two noise levels per picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_embedded_transformer import data

from asyndm_lib.demo import MODEL
from asyndm_lib.demo.training import denoiser
from asyndm_lib.demo.training.export import load_model
from asyndm_lib.demo.training.networks import TIMESTEPS, unet_with_maps
from asyndm_lib.models.unet import FAMILY

CPU = torch.device("cpu")


def test_the_levels_are_those_that_are_asked_for():
    torch.manual_seed(0)
    t = torch.randint(0, TIMESTEPS - 600, (4000,))
    others, inside = denoiser.two_levels(t, 32, 130.0, 0.25)
    assert (others >= t).all()
    lag = (others - t).float()
    assert lag.square().mean().sqrt() == pytest.approx(130, rel=0.05)
    share = inside.float().mean(dim=(1, 2, 3))
    assert (share == 0).float().mean() == pytest.approx(0.25, abs=0.04)
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):  # regions of every size
        assert ((share > low) & (share <= low + 0.2)).float().mean() > 0.04
    over = inside[:, 0].float().mean(dim=0)
    assert over.min() > 0.5 * over.max()  # anywhere
    top, _ = denoiser.two_levels(torch.full((100,), TIMESTEPS - 1), 32, 130.0, 0.25)
    assert (top == TIMESTEPS - 1).all()


@torch.no_grad()
def test_a_pixels_embedding_is_that_of_sampling():
    model = load_model(MODEL.parent, CPU)
    torch.manual_seed(0)
    x, t = torch.randn(2, 4, 32, 32), torch.tensor([400, 400])
    context = model.text(denoiser.full_ids(torch.full((2, 3), model.encode.eos), model.encode))
    inside = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    inside[0, :, 3:20, 5:9] = inside[1, :, 7:] = True
    trained, _ = unet_with_maps(model.unet, x, t, context, inside, torch.tensor([550, 550]))
    levels = FAMILY.timesteps(model.unet)
    levels.attach()
    with levels.use(torch.tensor([400.0, 550.0]), inside.long()):
        sampled = model.unet(x, timesteps=t, context=context)
    levels.detach()
    torch.testing.assert_close(trained, sampled, rtol=1e-3, atol=1e-3)
    assert (trained - unet_with_maps(model.unet, x, t, context)[0]).abs().max() > 1e-2


def test_training_keeps_its_weights_and_goes_on_from_them(tmp_path, capsys):
    data(tmp_path)
    first = denoiser.Settings(
        tmp_path / "data.pt", tmp_path / "first.st", MODEL.with_suffix(".yaml"), MODEL.parent / "tokenizer",
        iterations=2, batch=2, lead=130.0, keep_every=0.0, compile=False, device="cpu",
    )
    denoiser.train(first)
    denoiser.train(replace(first, resume=first.output, output=tmp_path / "second.st"))
    assert (tmp_path / "second.st").is_file()
    assert capsys.readouterr().out.count("unet done: 2 iterations") == 2
