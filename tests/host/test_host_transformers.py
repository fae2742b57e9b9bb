"""Transformers: every family in every kind of job, on and off, against the host without the
extension."""

import os
import subprocess
from pathlib import Path

import pictures
import pytest
from family import A1111, FOLDER, HOST
from PIL import Image
from requests_table import Row, in_base64, plot, switched_on
from row_check import ROUNDING, check
from test_host_pictures import WIDTH
from test_host_xyz import axes
from transformer_rows import HERE, JOBS, PROMPT, WORDS, Transformer, further_rows, network, row, rows
from webui import REPOSITORY, python_of

pytestmark = pytest.mark.skipif(not HERE, reason=f"no transformers are tried on {HOST.name}")


@pytest.fixture(scope="module", autouse=True)
def _checkpoints(host, reference, folder):
    """Small random transformers, made by the WebUI's own Python."""
    maker = [python_of(Path(FOLDER)), "-m", "tiny_transformers", HOST.name.lower().split()[-1]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([*maker, FOLDER, folder / "models"], cwd=REPOSITORY / "tests", env=environment, check=True)
    for server in (host, reference.server):
        server.post("/sdapi/v1/refresh-checkpoints")


@pytest.fixture(scope="module")
def before() -> list[str]:
    """The checkpoints of the tests before."""
    return []


@pytest.fixture(autouse=True)
def _made_with_its_options(request, before: list[str], host, reference):
    """A1111 puts the weights of a checkpoint into the model before it where the two are of one
    kind, and that was made with T5 or without. One of another kind comes between."""
    asked = request.node.callspec.params
    checkpoint = asked["row"].checkpoint if "row" in asked else asked["family"].name
    if HOST is A1111 and checkpoint not in before[-1:]:
        for server in (host, reference.server):
            assert server.make(Row("another kind", {"steps": 1}).off).status == 200
    before.append(checkpoint)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_row(row: Row, host, reference):
    check(row, host, reference)


@pytest.mark.parametrize("row", further_rows(), ids=lambda row: row.name)
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_further_row(row: Row, host, reference, folder):
    checkpoint = folder / "models" / "Stable-diffusion" / f"tiny-{row.checkpoint}.safetensors"
    if row.checkpoint.endswith(("-nf4", "-fp4")) and not checkpoint.exists():
        pytest.skip(f"the Python of {HOST.name} has no bitsandbytes")
    check(row, host, reference)


FAMILIES = pytest.mark.parametrize("family", HERE, ids=lambda family: family.name)


@FAMILIES
@pytest.mark.parametrize("what", ["interrupt", "raise"])
@pytest.mark.usefixtures("nothing_left")
def test_a_job_that_does_not_come_to_its_end_leaves_nothing(what, family: Transformer, host, reference):
    off = row(family, "off", steps=6).off
    before = host.make(off)  # the probe sits on the model that is loaded when it is armed
    host.post("/asyndm-probe/arm", {"what": what, "at": 3})
    answer = host.make(switched_on(off))
    left = host.get("/asyndm-probe/left")  # before another job can hide it
    assert (left["hooks"], left["others"], left["patches"]) == ([], [], [])
    if what == "raise":
        assert (answer.status, answer.info["error"]) == (500, "Accident")
    else:
        assert answer.status == 200
        assert pictures.has_content(answer.pictures[-1])
    assert host.make(off).pictures == before.pictures == reference(off).result().pictures


@FAMILIES
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_where_the_words_stand(family: Transformer, host):
    host.make(row(family, "off").off)
    answer = host.post("/asyndm/v1/tokens", {"prompt": PROMPT, "targets": ", ".join(WORDS)})
    places = [[token["index"] for token in target["occurrences"][0]["tokens"]] for target in answer["targets"]]
    assert places == list(family.words)


@pytest.mark.parametrize("family", [one for one in HERE if one.options], ids=lambda family: family.name)
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_t5_is_read_where_it_is_enabled(family: Transformer, host):
    without = next(one for one in HERE if f"{one.name}-t5" == family.name)
    made = [host.make(row(one, "off").off).pictures[0] for one in (family, without)]
    assert pictures.distance(*made) > ROUNDING


@FAMILIES
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_a_mask_of_all_is_the_whole_picture(family: Transformer, host):
    white = {"region": "painted", "mask": in_base64(Image.new("L", (7, 5), 255))}
    off = row(family, "off").off
    made = [host.make(switched_on(off, settings)).pictures for settings in (white, {"whole_picture": True})]
    assert len(made[0]) == 1
    assert all(map(pictures.same_pixels, *made))


@FAMILIES
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_a_lora_of_modulations_acts_on_what_lags_too(family: Transformer, host):
    """Also where what lags is all of the picture."""
    plain, with_lora = (row(family, "off", prompt=prompt).off for prompt in (PROMPT, network(family, "modulations")))
    for settings in (None, {"whole_picture": True}):
        made = [host.make(request).pictures[0] for request in (plain, with_lora)]
        ours = [host.make(switched_on(request, settings)).pictures[0] for request in (plain, with_lora)]
        distances = [pictures.distance(a, b) for a, b in (made, ours, (made[0], ours[0]), (made[1], ours[1]))]
        print(distances)
        assert min(distances) > 0.1


FURTHER = pytest.mark.parametrize("family", [one for one in HERE if one.further], ids=lambda family: family.name)


@FURTHER
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_the_sheet_follows_the_picture(family: Transformer, host, folder):
    """At a size that does not divide into the model's tokens, where the WebUI has such sizes."""
    size = {} if family.lacking("odd size") else JOBS["odd size"]
    asked = row(family, "sheet", **size).off
    shown, bare = (host.make(switched_on(asked, {"targets": "cat, dog", "show_masks": on})) for on in (True, False))
    assert shown.pictures[:-1] == bare.pictures
    assert shown.messages == bare.messages == []
    assert pictures.size(shown.pictures[-1])[0] == WIDTH
    (folder / f"sheet-{family.name}.png").write_bytes(shown.pictures[-1])


@FURTHER
@pytest.mark.usefixtures("nothing_left", "quiet")
def test_plots_and_infotexts(family: Transformer, host):
    """A cell is the picture of its settings, and its infotext makes it again."""
    asked = row(family, "plot", {"targets": "cat"})
    values, other = (0.0, 0.7), {"targets": "cat", "concavity": 0.7}
    answer = host.make(plot(axes(host), asked.on, x=("[AsynDM] Concavity", ", ".join(map(str, values)))))
    assert answer.status == 200, answer.info
    made = [host.make(switched_on(asked.off, {"targets": "cat", "concavity": value})) for value in values]
    for cell, alone in zip(answer.pictures[-2:], made, strict=True):
        assert pictures.same_pixels(cell, alone.pictures[0])
    text = pictures.infotext(made[1].pictures[0])
    assert "AsynDM concavity: 0.7" in text
    # Forge Neo reads the CFG of a model named Flux as the distilled one.
    own = {name: asked.off[name] for name in ("cfg_scale", "override_settings")}
    again = host.make({"infotext": text, **own})
    assert again.status == 200, again.info
    assert pictures.same_pixels(again.pictures[0], host.make(switched_on(asked.off, other)).pictures[0])
