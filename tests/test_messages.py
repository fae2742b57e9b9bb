"""What a person is told of a job of the WebUI."""

from __future__ import annotations

import pytest

from asyndm_lib.errors import Unsupported
from asyndm_lib.interface import messages


class Processing:
    """What messages need of the host's ``StableDiffusionProcessing``."""

    def __init__(self):
        self.comments: dict[str, int] = {}
        self.extra_generation_params: dict[str, object] = {}

    def comment(self, text: str) -> None:
        self.comments[text] = 1


@pytest.fixture
def p() -> Processing:
    return Processing()


REASON = Unsupported("the sampler 'a\x07b' chooses its own steps")
SHOWN = r"AsynDM: The sampler 'a\x07b' chooses its own steps. The {} was made without AsynDM."


def test_a_reason_that_holds_for_both_passes_is_said_once(p):
    messages.refuse(p, REASON, second=False)
    messages.refuse(p, REASON, second=True)
    assert list(p.comments) == [SHOWN.format("picture")]
    assert p.extra_generation_params["AsynDM messages"] == (SHOWN.format("picture"),)


def test_a_reason_against_the_second_pass_alone_names_it(p):
    messages.refuse(p, REASON, second=True)
    messages.refuse(p, REASON, second=True)
    assert list(p.comments) == [SHOWN.format("second pass")]


def test_another_reason_against_the_second_pass_is_said_too(p):
    messages.refuse(p, Unsupported("the model is compiled"), second=False)
    messages.refuse(p, REASON, second=True)
    assert len(p.comments) == 2
    assert list(p.comments)[1] == SHOWN.format("second pass")
