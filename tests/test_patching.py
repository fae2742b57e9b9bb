"""What a module's ``forward`` of ours leaves behind."""

from __future__ import annotations

import copy
import gc
import traceback
import weakref

import pytest
from torch import nn

from asyndm_lib.models.parts.patching import followed, replaced, watched


class Double:
    """A ``forward`` of a run's."""

    def __call__(self, x):
        return 2 * x


@pytest.mark.parametrize("hooked", [False, True])
def test_what_was_watched_is_gone_without_the_garbage_collector(hooked):
    module, double, seen = nn.Identity(), Double(), []
    if hooked:
        module.register_forward_hook(lambda *_: None)
    gone = weakref.ref(double)
    gc.disable()
    try:
        with replaced(module, "forward", double), watched(module, seen.append):
            module(1)
        del double
        assert gone() is None
    finally:
        gc.enable()
    assert seen == [2]
    assert module(1) == 1


def test_what_was_watched_is_gone_although_an_error_that_went_through_it_is_kept():
    class Failing:
        def __call__(self, x):
            raise ZeroDivisionError

    module, failing = nn.Identity(), Failing()
    gone = weakref.ref(failing)
    gc.disable()
    try:
        with (
            pytest.raises(ZeroDivisionError) as kept,
            replaced(module, "forward", failing),
            watched(module, lambda output: None),
        ):
            module(1)
        traceback.clear_frames(kept.value.__traceback__)
        del failing
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("watch", [watched, followed])
def test_who_watched_is_gone_although_its_own_error_is_kept(watch, hooked):
    class Watcher:
        def __call__(self, *seen):
            raise KeyboardInterrupt

    module, watcher = nn.Identity(), Watcher()
    if hooked:
        module.register_forward_hook(lambda *_: None)
    gone = weakref.ref(watcher)
    gc.disable()
    try:
        with pytest.raises(KeyboardInterrupt) as kept, watch(module, watcher):
            module(1)
        traceback.clear_frames(kept.value.__traceback__)
        del watcher
        assert gone() is None
    finally:
        gc.enable()
    assert module._forward_hooks.keys() == ({next(iter(module._forward_hooks))} if hooked else set())


def test_a_copy_of_a_module_that_is_watched_copies_nothing_of_ours():
    class Unique:
        def __deepcopy__(self, memo):
            raise AssertionError

    module, unique = nn.Identity(), Unique()
    with watched(module, lambda output: unique):
        other = copy.deepcopy(module)
        assert other.forward is module.forward
    module.register_forward_hook(lambda *_: None)
    with watched(module, lambda output: unique):
        other = copy.deepcopy(module)
        assert [*other._forward_hooks.values()] == [*module._forward_hooks.values()]
