"""The check that every row must pass, on any pair of WebUIs."""

import pictures
import pytest
from family import HOST
from reference import Reference
from requests_table import Row
from webui import WebUI

ROUNDING = 0.1
"""The mean difference of the pixels, in levels, that is no more than rounding."""


def check(row: Row, host: WebUI, reference: Reference) -> None:
    """Make ``row`` with and without AsynDM, and compare with the host without the extension."""
    if reason := HOST.lacking(row):
        pytest.skip(reason)
    if row.referenced:  # it encodes it anew, behind the same numbers, when another prompt was there
        other = {**row.off, "prompt": "another"}
        reference(other, row.kind)
        host.make(other, row.kind)
    if row.history:
        reference(row.off, row.kind, times=2)
        host.make(row.off, row.kind)
    bare = reference(row.off, row.kind)
    on, again, off = (host.make(request, row.kind) for request in (row.on, row.on, row.off))
    bare = bare.result()

    assert (bare.status, on.status, again.status, off.status) == (200, 200, 200, 200)
    assert off.pictures == bare.pictures, "the host is not as it was"
    assert len(on.pictures) == len(off.pictures) >= row.pictures
    assert list(map(pictures.size, on.pictures)) == list(map(pictures.size, off.pictures))
    assert row.size is None or {pictures.size(png) for png in on.pictures[-row.pictures :]} == {row.size}
    assert all(map(pictures.has_content, on.pictures)) or not all(map(pictures.has_content, off.pictures))
    assert on.pictures == again.pictures, "the same request made another picture"
    assert len(on.messages) == len(row.messages)
    assert all(part in message for part, message in zip(row.messages, on.messages, strict=True)), on.messages
    distances = [pictures.distance(a, b) for a, b in zip(on.pictures, off.pictures, strict=True)]
    print(f"on - off: {distances}")
    if row.unchanged:
        assert max(distances) == 0
    elif row.rounding:
        assert max(distances) < ROUNDING
    else:
        assert min(distances) > ROUNDING
    assert ("AsynDM" in on.infotext) != row.without
