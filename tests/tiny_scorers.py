"""The architectures of the scorers' models, tiny and with random weights, in folders as those of
the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers.decoders import ByteLevel as ByteDecoder
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import ByteLevel, Whitespace
from tokenizers.processors import TemplateProcessing

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
PADS = ("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")

LENGTH = 48
"""The most tokens of CLIP and OWL-ViT: each letter is one."""

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "cat", "dog", "sits", "on", "the", "mat", "red", "apple"]


def qwen(folder: Path) -> str:
    """Qwen2.5-VL, with a tokenizer of bytes."""
    vocabulary = {letter: n for n, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = tokenizers.Tokenizer(BPE(vocabulary, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteDecoder()
    tokenizer.add_special_tokens([*MARKS, *PADS])
    number = tokenizer.token_to_id
    fast = transformers.Qwen2TokenizerFast(
        tokenizer_object=tokenizer, eos_token=MARKS[2], pad_token=MARKS[0], additional_special_tokens=list(MARKS + PADS)
    )
    parts: dict[str, Any] = {"image_processor": transformers.Qwen2VLImageProcessor(), "tokenizer": fast}
    if hasattr(transformers, "Qwen2VLVideoProcessor"):
        parts["video_processor"] = transformers.Qwen2VLVideoProcessor()
    transformers.Qwen2_5_VLProcessor(**parts, chat_template=TEMPLATE).save_pretrained(folder)
    text = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
        "bos_token_id": number(MARKS[0]),
        "eos_token_id": number(MARKS[2]),
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 32,
        "fullatt_block_indexes": [1],
    }
    config = transformers.Qwen2_5_VLConfig(
        **text,
        vision_config=vision,
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
    )
    _save(transformers.Qwen2_5_VLForConditionalGeneration, config, folder)
    return str(folder)


def deberta(folder: Path) -> str:
    """DeBERTa, with a tokenizer of a few words."""
    tokenizer = tokenizers.Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    marks = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks, model_max_length=64)
    fast.save_pretrained(folder)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    kind = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0}
    config = transformers.DebertaConfig(**size, **kind, vocab_size=tokenizer.get_vocab_size())
    _save(transformers.DebertaModel, config, folder)
    return str(folder)


def clip(folder: Path) -> str:
    """CLIP, with a tokenizer of single letters."""
    _clip_processor(folder, transformers.CLIPProcessor, transformers.CLIPImageProcessor(size=32, crop_size=32))
    text, vision = _clip_sizes()
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    _save(transformers.CLIPModel, config, folder)
    return str(folder)


def owl(folder: Path) -> str:
    """OWL-ViT, with the same."""
    images = transformers.OwlViTImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False)
    _clip_processor(folder, transformers.OwlViTProcessor, images)
    text, vision = _clip_sizes()
    text["max_position_embeddings"] = LENGTH
    config = transformers.OwlViTConfig(text_config=text, vision_config=vision, projection_dim=text["hidden_size"])
    _save(transformers.OwlViTForObjectDetection, config, folder)
    return str(folder)


def _clip_processor(folder: Path, kind: Any, images: Any) -> None:
    letters = sorted(ByteLevel.alphabet())
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({name: n for n, name in enumerate(names)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = transformers.CLIPTokenizerFast.from_pretrained(folder, pad_token="!", model_max_length=LENGTH)
    kind(images, tokenizer).save_pretrained(folder)


def _clip_sizes() -> tuple[dict[str, Any], dict[str, Any]]:
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    vocabulary = 2 * len(ByteLevel.alphabet()) + 2
    marks = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": 0}
    return {**size, **marks, "vocab_size": vocabulary}, {**size, "image_size": 32, "patch_size": 8}


def _save(kind: Any, config: Any, folder: Path) -> None:
    model, generator = kind(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():  # as every version of transformers begins with others
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
