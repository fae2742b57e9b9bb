"""The small transformer in Stable Diffusion 3's form, and the flow around it."""

from __future__ import annotations

import pytest
import torch
from k_diffusion.sampling import sample_euler
from torch import Tensor

from asyndm_lib.hosts.standalone.flow import FlowDenoiser
from asyndm_lib.hosts.standalone.mmdit import MMDiT, RMSNorm, sines_of_places

SIZES = {"depth": 3, "hidden_size": 64, "context_size": 8, "pooled_size": 12, "in_channels": 4, "head_size": 16}


def model(**sizes: object) -> MMDiT:
    torch.manual_seed(0)
    return MMDiT(**{**SIZES, "pos_embed_max_size": 16, **sizes}).eval()


def inputs(height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    shapes = (2, 4, height, width), (2, 5, 8), (2, 12)
    x, context, y = (torch.randn(shape, generator=random) for shape in shapes)
    return x, torch.tensor([1000.0, 250.0]), context, y


def test_weights_have_the_names_of_the_reference_checkpoints():
    names = set(model(qk_norm="rms", dual_blocks=1).state_dict())
    stream = {f"{part}.{kind}" for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")
              for kind in ("weight", "bias")} | {"attn.ln_q.weight", "attn.ln_k.weight"}
    last = {name for name in stream if name.startswith(("attn.qkv", "attn.ln", "adaLN"))}
    second = {name.replace("attn", "attn2") for name in stream if name.startswith("attn")}
    expected = {f"joint_blocks.{n}.x_block.{name}" for n in range(3) for name in stream}
    expected |= {f"joint_blocks.{n}.context_block.{name}" for n in range(2) for name in stream}
    expected |= {f"joint_blocks.2.context_block.{name}" for name in last}
    expected |= {f"joint_blocks.0.x_block.{name}" for name in second}
    layers = ("x_embedder.proj", "t_embedder.mlp.0", "t_embedder.mlp.2", "y_embedder.mlp.0", "y_embedder.mlp.2")
    layers += ("context_embedder", "final_layer.linear", "final_layer.adaLN_modulation.1")
    expected |= {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")} | {"pos_embed"}
    assert names == expected


def test_modulations_are_as_wide_as_the_reference_s():
    with torch.device("meta"):  # Stable Diffusion 3.5 medium
        medium = MMDiT(24, 1536, 4096, 2048, qk_norm="rms", dual_blocks=13, pos_embed_max_size=384)
    shapes = {name: tuple(value.shape) for name, value in medium.state_dict().items()}
    assert shapes["joint_blocks.12.x_block.adaLN_modulation.1.weight"] == (9 * 1536, 1536)
    assert shapes["joint_blocks.13.x_block.adaLN_modulation.1.weight"] == (6 * 1536, 1536)
    assert shapes["joint_blocks.23.context_block.adaLN_modulation.1.weight"] == (2 * 1536, 1536)
    assert shapes["joint_blocks.0.x_block.attn.ln_q.weight"] == (64,)
    assert shapes["pos_embed"] == (1, 384 * 384, 1536)
    assert shapes["x_embedder.proj.weight"] == (1536, 16, 2, 2)
    assert shapes["final_layer.linear.weight"] == (64, 1536)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (6, 10), (7, 9)])
def test_a_token_is_a_patch_of_the_latent_in_rows(height, width):
    net = model()
    with torch.no_grad():
        for block in net.joint_blocks:  # nothing is added to the tokens
            block.x_block.adaLN_modulation[1].weight.zero_()
            block.x_block.adaLN_modulation[1].bias.zero_()
        net.pos_embed.zero_()
        x, t, context, y = inputs(height, width)
        before = net(x, t, context, y)
        changed = x.clone()
        changed[:, :, 2, 5] += 1.0  # in the patch of rows 2-3, columns 4-5
        where = (net(changed, t, context, y) != before).any(dim=1)
    expected = torch.zeros(height, width, dtype=torch.bool)
    expected[2:4, 4:6] = True
    assert torch.equal(where, expected.expand_as(where))


def test_an_odd_latent_is_padded_with_its_other_side_and_cut_again():
    net = model()
    x, *rest = inputs(7, 9)
    padded = torch.cat([x, x[..., :1, :]], dim=-2)
    padded = torch.cat([padded, padded[..., :1]], dim=-1)
    with torch.no_grad():
        assert torch.equal(net(x, *rest), net(padded, *rest)[..., :7, :9])


def test_places_are_the_middle_of_the_table_and_tell_rows_from_columns():
    net = model()
    table = net.pos_embed[0].unflatten(0, (16, 16))
    assert torch.equal(net.places(4, 6)[0].unflatten(0, (4, 6)), table[6:10, 5:11])
    waves = sines_of_places(8, 3).unflatten(0, (3, 3))
    assert torch.equal(waves[1, :, 4:], waves[1, :1, 4:].expand(3, 4))  # one row, one second half
    assert torch.equal(waves[:, 1, :4], waves[:1, 1, :4].expand(3, 4))
    torch.testing.assert_close(waves[2, 1, :4], torch.tensor([1.0, 0.01, 1.0, 0.01]).sin().where(
        torch.tensor([True, True, False, False]), torch.tensor([1.0, 0.01, 1.0, 0.01]).cos()))


def test_every_input_counts_and_the_second_attention_does():
    net = model(dual_blocks=2, qk_norm="rms")
    given = inputs(8, 8)
    with torch.no_grad():
        out = net(*given)
        for at, change in enumerate((1.0, 300.0, 1.0, 1.0)):
            other = list(given)
            other[at] = given[at] + change
            assert not torch.allclose(net(*other), out, atol=1e-4), at
        net.joint_blocks[1].x_block.attn2.proj.bias.add_(1.0)
        assert not torch.allclose(net(*given), out, atol=1e-4)


def test_the_norm_of_queries_is_the_root_mean_square():
    x = torch.tensor([[3.0, 4.0]])
    torch.testing.assert_close(RMSNorm(2)(x), x / 12.5**0.5)


class Straight:
    """A model that knows the picture and the noise."""

    def __init__(self, picture: Tensor, noise: Tensor):
        self._velocity = noise - picture
        self.times: list[Tensor] = []

    def apply_model(self, x: Tensor, t: Tensor) -> Tensor:
        self.times.append(t)
        return self._velocity


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flow_s_way_is_straight(shift):
    picture, noise = torch.randn(2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    straight = Straight(picture, noise)
    denoiser = FlowDenoiser(straight, shift)
    sigmas = denoiser.get_sigmas(4)
    assert sigmas[0] == denoiser.sigma_max == 1
    torch.testing.assert_close(sigmas[2], torch.tensor(shift * 0.5 / (1 + (shift - 1) * 0.5)))
    torch.testing.assert_close(denoiser(0.3 * noise + 0.7 * picture, torch.tensor([0.3])), picture)
    straight.times.clear()
    torch.testing.assert_close(sample_euler(denoiser, noise * sigmas[0], sigmas, disable=True), picture)
    torch.testing.assert_close(torch.cat(straight.times), 1000 * sigmas[:-1])
    torch.testing.assert_close(denoiser.t_to_sigma(denoiser.sigma_to_t(sigmas)), sigmas)


def test_a_sigma_of_its_own_for_every_pixel_is_the_same_formula():
    picture, noise = torch.randn(2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    denoiser = FlowDenoiser(Straight(picture, noise), 3.0)
    sigma = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    x = (1 - sigma) * picture + sigma * noise
    plain = denoiser.get_scalings
    denoiser.get_scalings = lambda _: plain(sigma)  # as the run puts it in
    torch.testing.assert_close(denoiser(x, torch.tensor([0.5])), picture)
