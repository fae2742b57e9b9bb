"""The account of a model's weights that a UNet of ComfyUI's engine and our clone of it share."""

from __future__ import annotations

import pytest

from asyndm_lib.hosts.forge_family.patchers import one_account


class Patcher:
    """ComfyUI's, as it is in Forge Classic, with numbers for weights."""

    def __init__(self, weights):
        self.weights, self.patches, self.backup = weights, {}, {}

    def clone(self):
        clone = Patcher(self.weights)
        clone.patches = {name: list(added) for name, added in self.patches.items()}
        return clone

    def patch_model(self):
        for name, added in self.patches.items():
            self.backup.setdefault(name, self.weights[name])
            self.weights[name] += sum(added)

    def unpatch_model(self):
        self.weights.update(self.backup)
        self.backup = {}


@pytest.fixture
def unet():
    unet = Patcher({"a": 1.0, "b": 2.0})
    unet.patches = {"a": [0.5]}
    unet.patch_model()
    return unet


def take_out(patcher):
    """Take out a LoRA, which is what LoRA Block Weight does with ``stop=``."""
    patcher.unpatch_model()
    patcher.patches["a"] = [0.0]
    patcher.patch_model()


def test_a_lora_that_is_taken_out_of_the_clone_is_out_of_the_model(unet):
    clone = unet.clone()
    with one_account(unet, clone):
        take_out(clone)
        assert unet.weights == {"a": 1.0, "b": 2.0}


def test_afterwards_all_is_as_if_it_had_been_taken_out_of_the_unet_itself(unet):
    other = Patcher({"a": 1.0, "b": 2.0})
    other.patches = {"a": [0.5]}
    other.patch_model()
    clone = unet.clone()
    with one_account(unet, clone):
        take_out(clone)
    take_out(other)
    assert vars(unet) == vars(other)
    unet.unpatch_model()
    assert unet.weights == {"a": 1.0, "b": 2.0}


def test_an_extension_that_kept_the_unet_from_before_the_call_loses_no_weight(unet):
    """The host's list of loaded models keeps it too."""
    clone = unet.clone()
    with one_account(unet, clone):
        unet.unpatch_model()
        unet.patches = {"a": [0.5], "b": [0.25]}
        unet.patch_model()
    assert unet.backup == {"a": 1.0, "b": 2.0}
    unet.unpatch_model()
    assert unet.weights == {"a": 1.0, "b": 2.0}


def test_what_was_taken_off_its_device_in_mid_picture_keeps_no_weights_behind(unet):
    clone = unet.clone()
    with one_account(unet, clone):
        unet.unpatch_model()
    assert unet.backup == {}


@pytest.mark.parametrize("nested", [False, True])
def test_an_error_and_a_call_in_a_call_give_the_account_back(nested, unet):

    def failing(unet, deeper):
        clone = unet.clone()
        with one_account(unet, clone):
            if deeper:
                failing(clone, False)
            take_out(clone)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing(unet, nested)
    assert (unet.patches, unet.backup) == ({"a": [0.0]}, {"a": 1.0})
    unet.unpatch_model()
    assert unet.weights == {"a": 1.0, "b": 2.0}
