"""The scorers: what they lack, and each one's way through its model, of the same architecture with
tiny random weights."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tiny_scorers
import torch
import torch.nn.functional as F
import transformers
from huggingface_hub.constants import HF_HUB_CACHE
from PIL import Image

from asyndm_lib.evaluation import detectors, geneval, scorers, weights
from asyndm_lib.evaluation.detectors import Detection
from asyndm_lib.evaluation.gallery import Gallery
from asyndm_lib.evaluation.methods import DM, FRESH, Method
from asyndm_lib.evaluation.prompts import Prompt
from asyndm_lib.evaluation.scorers import Scorer
from asyndm_lib.evaluation.text_similarity import TextSimilarity, recall
from asyndm_lib.evaluation.vision_language import CAPTION, RATE, VisionLanguageModel

CPU = torch.device("cpu")
PROMPT = Prompt("a cat", "cat")
HAS_QWEN = hasattr(transformers, "Qwen2_5_VLForConditionalGeneration")
needs_qwen = pytest.mark.skipif(not HAS_QWEN, reason=f"transformers {transformers.__version__} has no Qwen2.5-VL")


def picture(seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 96, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


def pretend(monkeypatch, name, **members):
    module = types.ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


# What is there


def test_scorers_say_what_they_lack(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("ImageReward", "t2v_metrics", "ultralytics"):
        monkeypatch.setitem(sys.modules, name, None)
    for place, name in ((scorers, "CLIP"), (scorers, "QWEN"), (scorers, "BERT"), (detectors, "OWL")):
        monkeypatch.setattr(place, name, f"nobody/has-{name}")
    known, missing = scorers.available(CPU, exact=False)
    assert known == {}
    assert tuple(missing) == scorers.NAMES == tuple(scorers.GET)
    assert missing["CLIPScore"] == "the weights of nobody/has-CLIP are missing"
    assert missing["ImageReward"] == "the package ImageReward is missing"
    assert missing["VQAScore"] == "the package t2v_metrics is missing"
    assert missing["GenEval"] == "the package ultralytics is missing; or the weights of nobody/has-OWL are missing"
    assert missing["BERTScore"] == missing["QwenScore"]
    if HAS_QWEN:
        assert missing["QwenScore"] == "the weights of nobody/has-QWEN are missing"
    else:
        assert "has no Qwen2.5-VL" in missing["QwenScore"]
    assert all("\n" not in why for why in missing.values())


def test_a_package_that_fails_to_import_is_told(monkeypatch, tmp_path):
    (tmp_path / "broken_scorer.py").write_text("raise RuntimeError('needs\\nanother torch')")
    monkeypatch.syspath_prepend(tmp_path)
    told = "broken_scorer cannot be imported here: RuntimeError: needs another torch"
    assert weights.package("broken_scorer") == told
    assert weights.package("json") is None


def test_no_model_is_loaded_before_its_first_score(monkeypatch, folder):
    monkeypatch.setattr(scorers, "CLIP", str(folder))  # holds no model: to load it would fail
    known, _ = scorers.available(CPU, exact=False)
    assert known["CLIPScore"].made_of == str(folder)
    with pytest.raises(OSError, match=str(folder)):
        known["CLIPScore"].load()


def test_a_scorer_that_fails_costs_no_other_and_no_score(tmp_path):
    pictures = Gallery(tmp_path, [PROMPT, PROMPT], (DM, Method("AsynDM", FRESH.settings)), range(2))
    for method in pictures.methods:
        for number in range(2):
            for seed in range(2):
                pictures._keep(picture(), method, number, seed)
    loaded, asked, said = [], [], []

    def failing():
        loaded.append("failing")

        def score(prompt, picture):
            asked.append(1)
            if len(asked) == 6:
                raise RuntimeError("CUDA\nout of memory")
            return 0.5

        return score

    def sound():
        loaded.append("sound")
        return lambda prompt, picture: 1.0

    kinds = {"failing": Scorer(failing, ""), "sound": Scorer(sound, "")}
    scores = pictures.scores(kinds, {}, said.append)
    assert said == ["no failing: CUDA out of memory"]
    assert list(scores) == ["sound"]
    assert (scores["sound"]["AsynDM"] == 1.0).all()
    scores = pictures.scores(kinds, {}, said.append)
    assert (scores["failing"]["DM"] == 0.5).all()
    assert len(asked) == 6 + 3  # the five before are on file
    assert loaded == ["failing", "sound", "failing"]
    pictures.scores(kinds, {})
    assert len(loaded) == 3  # nothing is loaded for what is known


# Each scorer


def test_image_reward_is_asked_with_prompt_and_picture(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = []
    model = types.SimpleNamespace(score=lambda text, picture: asked.append((text, picture.size)) or 0.25)
    pretend(monkeypatch, "ImageReward", load=lambda name, device: asked.append((name, device)) or model)
    assert "ImageReward.pt" not in scorers.available(CPU, exact=False)[0]
    assert "are not in" in scorers.available(CPU, exact=False)[1]["ImageReward"]
    (tmp_path / ".cache/ImageReward").mkdir(parents=True)
    (tmp_path / ".cache/ImageReward/ImageReward.pt").touch()
    known, _ = scorers.available(CPU, exact=False)
    assert known["ImageReward"].load()(PROMPT, picture()) == 0.25
    assert asked == [("ImageReward-v1.0", "cpu"), (PROMPT.text, (96, 64))]


def test_vqa_score_is_asked_with_a_file_and_the_prompt(monkeypatch, folder):
    asked = []

    class Model:
        def __init__(self, model, device, cache_dir):
            asked.append((model, device, cache_dir))

        def __call__(self, images, texts):
            (file,) = images
            with Image.open(file) as opened:
                assert np.array_equal(np.asarray(opened), np.asarray(picture()))
            asked.append(Path(file))
            asked.append(texts)
            return torch.tensor([[0.75]])

    pretend(monkeypatch, "t2v_metrics", VQAScore=Model)
    here = {str(folder): weights.WEIGHTS}
    monkeypatch.setattr(scorers, "VQA_PARTS", {**here, "nobody/has-this": weights.WEIGHTS})
    lacking = {"VQAScore": "the weights of nobody/has-this are missing"}
    assert scorers.available(CPU, False, ["VQAScore"]) == ({}, lacking)
    monkeypatch.setattr(scorers, "VQA_PARTS", {**here, "nobody/has-this": ("spiece.model",)})
    assert scorers.available(CPU, False, ["VQAScore"])[1]["VQAScore"] == "spiece.model of nobody/has-this is missing"
    monkeypatch.setattr(scorers, "VQA_PARTS", here)
    known, missing = scorers.available(CPU, False, ["VQAScore"])
    assert (list(known), missing) == (["VQAScore"], {})
    assert known["VQAScore"].load()(PROMPT, picture()) == 0.75
    (model, file, texts) = asked
    assert (model, texts) == (("clip-flant5-xxl", "cpu", HF_HUB_CACHE), [PROMPT.text])
    assert not file.exists()


def test_clip_score_is_the_cosine(monkeypatch, folder):
    monkeypatch.setattr(scorers, "CLIP", tiny_scorers.clip(folder / "clip"))
    known, _ = scorers.available(CPU, exact=False)
    score = known["CLIPScore"].load()
    model = transformers.CLIPModel.from_pretrained(scorers.CLIP).eval()
    processor = transformers.CLIPProcessor.from_pretrained(scorers.CLIP)
    inputs = processor(text=[PROMPT.text], images=picture(), return_tensors="pt")
    with torch.no_grad():
        answer = model(**inputs)
    wanted = float((F.normalize(answer.image_embeds) * F.normalize(answer.text_embeds)).sum())
    assert score(PROMPT, picture()) == pytest.approx(wanted, abs=1e-5)
    assert abs(score(PROMPT, picture(1)) - wanted) > 1e-5
    assert -1 <= score(Prompt("a long prompt " * 30, ""), picture()) <= 1  # cut short


def test_the_counter_scores_pictures_of_the_sets():
    known, _ = scorers.available(CPU, exact=True)
    score = known["exact"].load()
    grey = Image.fromarray(np.full((256, 256, 3), 200, np.uint8))
    assert score(Prompt("a cat", "cat", (("cat", 1),)), grey) == 0.0
    assert score(Prompt("nothing", ""), grey) == 1.0


def test_recall_is_the_mean_of_the_best_matches():
    wanted, text = torch.eye(3)[:2], torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 3.0]])
    assert recall(text, wanted) == pytest.approx((1 + 0.5**0.5) / 2)
    assert recall(text[:0], wanted) == recall(text, wanted[:0]) == 0.0


def test_bert_score_reads_a_layers_output_without_the_marks(folder):
    similarity = TextSimilarity(CPU, tiny_scorers.deberta(folder / "deberta"), layer=1)
    text, wanted = "a red apple on the mat", "the cat sits"
    assert similarity.recall(wanted, wanted) == pytest.approx(1.0, abs=1e-5)
    assert similarity.recall("", wanted) == 0.0
    model = transformers.DebertaModel.from_pretrained(folder / "deberta").eval()

    def embedded(text):
        numbers = [tiny_scorers.WORDS.index(word) for word in ("[CLS]", *text.split(), "[SEP]")]
        with torch.no_grad():
            return model(torch.tensor([numbers]), output_hidden_states=True).hidden_states[1][0, 1:-1]

    cosines = F.cosine_similarity(embedded(wanted)[:, None], embedded(text)[None], dim=-1)
    assert similarity.recall(text, wanted) == pytest.approx(float(cosines.amax(dim=1).mean()), abs=1e-4)


@needs_qwen
def test_qwen_answers_with_the_likeliest_digit(monkeypatch, folder):
    model = VisionLanguageModel(CPU, tiny_scorers.qwen(folder / "qwen"))
    chat = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{}<|im_end|>\n<|im_start|>assistant\n"
    processor, own = model._processor, model._model
    inputs = processor(text=[chat.format(RATE.format("a cat"))], images=[picture()], return_tensors="pt")
    with torch.no_grad():
        logits = own(**inputs).logits[0, -1]
    numbers = [processor.tokenizer.convert_tokens_to_ids(str(digit)) for digit in range(10)]
    assert model.rating(picture(), "a cat") == int(logits[numbers].argmax())
    inputs = processor(text=[chat.format(CAPTION)], images=[picture()], return_tensors="pt")
    with torch.no_grad():
        first = own(**inputs).logits[0, -1].argmax()
    caption = model.caption(picture())
    assert caption == model.caption(picture())
    assert caption.encode()[:1] == processor.tokenizer.decode([first]).strip().encode()[:1]


@needs_qwen
def test_bert_and_qwen_score_share_a_model(monkeypatch, folder):
    loaded = []

    class Watched(VisionLanguageModel):
        def __init__(self, device, name):
            loaded.append(name)
            super().__init__(device, name)

    monkeypatch.setattr(scorers, "VisionLanguageModel", Watched)
    monkeypatch.setattr(scorers, "QWEN", tiny_scorers.qwen(folder / "qwen"))
    monkeypatch.setattr(scorers, "BERT", tiny_scorers.deberta(folder / "deberta"))
    monkeypatch.setattr(scorers, "TextSimilarity", lambda device, name: TextSimilarity(device, name, layer=1))
    known, _ = scorers.available(CPU, exact=False)
    bert, qwen = known["BERTScore"].load(), known["QwenScore"].load()
    assert loaded == [scorers.QWEN]
    assert -1 <= bert(PROMPT, picture()) <= 1
    assert qwen(PROMPT, picture()) in range(10)


def test_owl_vit_finds_things_in_the_pictures_own_pixels(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    monkeypatch.setattr(detectors, "OWL", tiny_scorers.owl(folder / "owl"))
    monkeypatch.setattr(detectors, "SURE_OWL", 0.0)
    assert detectors.lacking() is None
    assert detectors.kind() == detectors.OWL
    found = detectors.load(CPU, geneval.NAMES)(picture())
    model = transformers.OwlViTForObjectDetection.from_pretrained(detectors.OWL).eval()
    processor = transformers.OwlViTProcessor.from_pretrained(detectors.OWL)
    texts = [[f"a photo of a {name}" for name in geneval.NAMES]]
    with torch.no_grad():
        answer = model(**processor(text=texts, images=picture(), return_tensors="pt"))
    sure, which = answer.logits[0].sigmoid().max(dim=-1)
    boxes = answer.pred_boxes[0] * torch.tensor([96, 64, 96, 64])
    first = int(sure.argmax())
    assert found[0].name == geneval.NAMES[int(which[first])]
    assert found[0].confidence == pytest.approx(float(sure[first]), abs=1e-5)
    assert found[0].centre == pytest.approx(boxes[first, :2].tolist(), abs=1e-3)
    left, top, right, bottom = found[0].box
    assert (right - left, bottom - top) == pytest.approx(boxes[first, 2:].tolist(), abs=1e-3)
    for n, one in enumerate(found):  # no two boxes of a name lie on each other
        assert all(_shared(one.box, other.box) <= detectors.OVERLAP for other in found[:n] if other.name == one.name)
    monkeypatch.setattr(detectors, "SURE_OWL", found[0].confidence - 1e-4)
    assert len(detectors.load(CPU, geneval.NAMES)(picture())) == 1


def _shared(box, other):
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    both = max(width, 0) * max(height, 0)
    return both / ((box[2] - box[0]) * (box[3] - box[1]) + (other[2] - other[0]) * (other[3] - other[1]) - both)


def test_yolo_is_taken_where_it_is_here(monkeypatch, tmp_path):
    asked = []

    class Model:
        def __init__(self, file):
            asked.append(file)

        def predict(self, picture, **options):
            asked.append(options)
            parts = {"cls": [1.0], "conf": [0.75], "xyxy": [[1.0, 2.0, 3.0, 4.0]]}
            boxes = types.SimpleNamespace(**{name: torch.tensor(value) for name, value in parts.items()})
            return [types.SimpleNamespace(names={0: "cat", 1: "dog"}, boxes=boxes)]

    pretend(monkeypatch, "ultralytics", YOLO=Model, settings={"weights_dir": str(tmp_path)})
    monkeypatch.setattr(detectors, "OWL", "nobody/has-this")
    assert f"{detectors.YOLO} is neither in this folder nor" in detectors.lacking()
    (tmp_path / detectors.YOLO).touch()
    assert detectors.lacking() is None
    assert detectors.kind() == detectors.YOLO
    assert detectors.load(CPU, geneval.NAMES)(picture()) == [Detection("dog", 0.75, (1.0, 2.0, 3.0, 4.0))]
    assert asked[0] == str(tmp_path / detectors.YOLO)
    assert asked[1]["conf"] == detectors.SURE_YOLO


def test_geneval_judges_what_the_detector_finds(monkeypatch):
    monkeypatch.setattr(detectors, "lacking", lambda: None)
    monkeypatch.setattr(detectors, "kind", lambda: "a stand-in")
    found = [Detection("cat", 0.9, (0, 0, 40, 40))]
    monkeypatch.setattr(detectors, "load", lambda device, names: lambda picture: found)
    known, _ = scorers.available(CPU, exact=False)
    score = known["GenEval"].load()
    scene = geneval.Scene("a photo of a cat", "cat", (("cat", 1),), None, "one object")
    assert score(scene, picture()) == 1.0
    found.clear()
    assert score(scene, picture()) == 0.0
