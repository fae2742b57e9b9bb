"""The X/Y/Z plot: an axis for every setting, each cell its own."""

import pictures
import pytest
from requests_table import BASE, CURVES, DEFAULTS, SMALL, plot, switched_on

pytestmark = pytest.mark.usefixtures("nothing_left")

LABELS = (
    *("[AsynDM] Enabled", "[AsynDM] Concavity", "[AsynDM] Curve", "[AsynDM] Mask timing", "[AsynDM] Mask threshold"),
    *("[AsynDM] Targets", "[AsynDM] Whole picture", "[AsynDM] Second pass", "[AsynDM] Second pass concavity"),
)
REQUEST = {**BASE, **SMALL}


def axes(server, is_img2img=False) -> list[str]:
    scripts = server.get("/sdapi/v1/script-info")
    return next(s for s in scripts if s["name"] == "x/y/z plot" and s["is_img2img"] == is_img2img)["args"][0]["choices"]


@pytest.fixture(scope="module")
def labels(host):
    return axes(host)


def cells(host, request, count, kind="txt2img"):
    """The pictures and infotexts of a plot, without the grid."""
    answer = host.make(request, kind)
    assert answer.status == 200, answer.info
    return list(zip(answer.pictures[-count:], answer.info["infotexts"][-count:], strict=True))


@pytest.mark.parametrize("is_img2img", [False, True])
def test_the_axes_are_there_once_in_their_order(is_img2img, host):
    ours = [label for label in axes(host, is_img2img) if label.startswith("[AsynDM]")]
    assert tuple(ours[: len(LABELS)]) == LABELS
    assert len(ours) == len(set(ours))


AXES = {
    "Concavity": ("0, 0.7, 1", [{"concavity": k} for k in (0.0, 0.7, 1.0)]),
    "Curve": ("quadratic, exponential", [{"curve": curve} for curve in ("quadratic", "exponential")]),
    "Mask timing": ("fresh, static", [{"mask_timing": timing} for timing in ("fresh", "static")]),
    "Mask threshold": ("0.5, 2", [{"threshold": t} for t in (0.5, 2.0)]),
    "Targets": ('"cat:0.9, dog", dog, red heart', [{"targets": t} for t in ("cat:0.9, dog", "dog", "red heart")]),
    "Whole picture": ("False, True", [{"whole_picture": on} for on in (False, True)]),
}


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("axis", AXES)
def test_a_cell_is_the_picture_of_its_settings(axis, host, labels):
    text, settings = AXES[axis]
    made = cells(host, plot(labels, switched_on(REQUEST), x=(f"[AsynDM] {axis}", text)), len(settings))
    assert len({png for png, _ in made}) == len(settings)
    for (png, infotext), own in zip(made, settings, strict=True):
        alone = host.make(switched_on(REQUEST, {"targets": "cat", **own}))
        assert pictures.same_pixels(png, alone.pictures[0])
        assert infotext == alone.infotext


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("axis", ["Second pass", "Second pass concavity"])
def test_the_second_pass(axis, host, labels):
    hires = {**REQUEST, "enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.7}
    values = ("same", "off") if axis == "Second pass" else (0.0, 1.0)
    base = {"targets": "cat", "second_pass": "own concavity"}
    name = "second_pass" if axis == "Second pass" else "second_concavity"
    text = ", ".join(map(str, values))
    made = cells(host, plot(labels, switched_on(hires, base), x=(f"[AsynDM] {axis}", text)), 2)
    assert made[0][0] != made[1][0]
    for (png, infotext), value in zip(made, values, strict=True):
        alone = host.make(switched_on(hires, {**base, name: value}))
        assert pictures.same_pixels(png, alone.pictures[0])
        # The cells share one dictionary of entries, in which those of the first one stay where they
        # are.
        assert sorted(infotext.split(", ")) == sorted(alone.infotext.split(", "))


@pytest.mark.usefixtures("quiet")
def test_a_cell_that_is_off_is_the_hosts_own(host, reference, labels):
    on, off, again = cells(host, plot(labels, switched_on(REQUEST), x=("[AsynDM] Enabled", "True, off, on")), 3)
    bare = reference(REQUEST).result()
    assert off == (bare.pictures[0], bare.infotext)
    assert on == again
    assert on[0] == host.make(switched_on(REQUEST)).pictures[0]


@pytest.mark.usefixtures("quiet")
def test_three_axes_and_their_order(host, labels):
    request = plot(
        labels,
        switched_on(REQUEST),
        x=("[AsynDM] Concavity", "0.3, 0.9"),
        y=("[AsynDM] Targets", "cat, dog"),
        z=("[AsynDM] Enabled", "False, True"),
    )
    made = cells(host, request, 8)
    assert ["AsynDM" in text for _, text in made] == [False] * 4 + [True] * 4
    assert len({png for png, _ in made}) == 5
    for (png, _), own in zip(made[4:], [(k, t) for t in ("cat", "dog") for k in (0.3, 0.9)], strict=True):
        alone = host.make(switched_on(REQUEST, {"concavity": own[0], "targets": own[1]}))
        assert pictures.same_pixels(png, alone.pictures[0])


@pytest.mark.usefixtures("quiet")
def test_the_axes_alone_switch_it_on(host, labels):
    made = cells(host, plot(labels, REQUEST, x=("[AsynDM] Targets", "cat, dog"), y=("Seed", "1")), 2)
    for (png, _), target in zip(made, ("cat", "dog"), strict=True):
        assert png == host.make(switched_on(REQUEST, {"targets": target})).pictures[0]


@pytest.mark.usefixtures("quiet")
def test_img2img_and_a_dropdowns_values(host, start_picture):
    request = {**REQUEST, "init_images": [start_picture], "denoising_strength": 0.7}
    asked = plot(axes(host, True), switched_on(request), x=("[AsynDM] Curve", ""))
    asked["script_args"][2], asked["script_args"][-1] = list(CURVES), False
    texts = [text for _, text in cells(host, asked, 3, "img2img")]
    assert ["AsynDM curve" in text for text in texts] == [False, True, True]


@pytest.mark.usefixtures("quiet")
def test_a_range_ends_at_its_end(host, labels):
    """The host's own axes go one step past the end where the steps do not fit."""
    made = cells(host, plot(labels, switched_on(REQUEST), x=("[AsynDM] Concavity", "0.6-1 (+0.2)")), 3)
    assert [line.split("AsynDM concavity: ")[1].split(",")[0] for _, line in made] == ["0.6", "0.8", "1.0"]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("axis", "text", "said"),
    [
        ("Concavity", "0.5, much", "Concavity must be a number, not 'much'"),
        ("Concavity", "0.5, 1.5", "Concavity must be from 0 to 1, not 1.5"),
        ("Concavity", "nan", "from 0 to 1, not nan"),
        ("Concavity", "0-1 (+0)", "the range '0-1 (+0)'"),
        ("Concavity", "", "no values are given"),
        ("Concavity", 0.5, "the values must be text, divided by commas, not 0.5"),
        ("Concavity", ["0.5"], "the values must be text"),
        ("Mask threshold", "-1", "from 0 to 4"),
        ("Curve", "cubic", "Curve must be one of"),
        ("Curve", "", "no values are given"),
        ("Mask timing", "Lagged?", "Mask timing must be one of"),
        ("Targets", "cat, dog:2", "2 is not from 0 to 1"),
        ("Targets", None, "the values must be text"),
        ("Targets", "a" * 200_000, "the values cannot be read"),
        ("Enabled", "perhaps", "'perhaps' is neither True nor False"),
        ("Whole picture", "maybe", "neither True nor False"),
    ],
)
def test_a_wrong_value_is_refused_before_the_first_picture(axis, text, said, host, labels):
    """A wrong setting of a request is refused alike, and no traceback is in the WebUI's console."""
    answer = host.make(plot(labels, switched_on(REQUEST), x=(f"[AsynDM] {axis}", text)))
    assert answer.status == 422
    assert answer.info["detail"].startswith(f"[AsynDM] {axis}: ")
    assert said in answer.info["detail"]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("axis", "given", "said"),
    [
        ("Curve", ["cubic"], "Curve must be one of"),
        ("Curve", [0.5, None], "Curve must be one of"),
        ("Enabled", [2], "'2' is neither True nor False"),
        ("Mask timing", [], "\"Use text inputs instead of dropdowns\", is true"),
    ],
)
def test_so_is_a_wrong_value_in_place_of_a_dropdowns(axis, given, said, host, labels):
    asked = plot(labels, switched_on(REQUEST), x=(f"[AsynDM] {axis}", "fresh, static"))
    asked["script_args"][2], asked["script_args"][-1] = given, False
    answer = host.make(asked)
    assert answer.status == 422
    assert said in answer.info["detail"]


def test_every_setting_but_the_pictures_has_its_axis(labels):
    """A cell shows one picture. More would be made for nothing. And a mask is no text to type."""
    assert sum(label.startswith("[AsynDM] ") for label in labels) == 1 + len(DEFAULTS) - 2
