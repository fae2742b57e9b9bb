"""Stands for the whole suite where there is no WebUI to run it on."""

import os

import pytest


def test_a_webui_is_named():
    if not os.environ.get("ASYNDM_WEBUI"):
        pytest.skip("ASYNDM_WEBUI is not set")
    assert os.path.isfile(os.path.join(os.environ["ASYNDM_WEBUI"], "launch.py")), "ASYNDM_WEBUI is not a WebUI's folder"
