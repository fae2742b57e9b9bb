"""Every row of the table, on and off, against the host without the extension."""

import pytest
from family import HOST
from materials import HYPERNETWORK, LORA
from pictures import pixels
from requests_table import BASE, PROMPT, Row, rows
from row_check import check


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_row(row: Row, host, reference):
    check(row, host, reference)


def test_the_networks_of_the_rows_change_the_picture(reference):
    tags = ["", f"<lora:{LORA}:te=0.8:unet=0>", f"<lora:{LORA}:0:0.8>"]
    if "hypernetworks" not in HOST.lacks:
        tags.append(f"<hypernet:{HYPERNETWORK}:1>")
    made = [reference({**BASE, "prompt": f"{PROMPT} {tag}"}).result() for tag in tags]
    assert len({pixels(answer.pictures[0]).tobytes() for answer in made}) == len(tags)
