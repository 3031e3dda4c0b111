"""Tiny checkpoints with code of their own, in the shape of five families' code on the Hub.

Each names the color of its first picture, and keeps what it was given in ``asked``. Signatures are those
of the families' code, without a ``**kwargs`` that would swallow a wrong name where they have none.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

import tiny

CONFIGURATION = """
from transformers import PretrainedConfig


class Config(PretrainedConfig):
    model_type = "{kind}"

    def __init__(self, **options):
        for name, value in {defaults}.items():
            options.setdefault(name, value)
        super().__init__(**options)
"""

HEAD = """
import torch
from transformers import AutoTokenizer, GenerationMixin, PreTrainedModel

from .configuration import Config


def color(pixels):
    return ["red", "green", "blue"][int(pixels.float().flatten(1).mean(1).argmax())]


class Model(PreTrainedModel, GenerationMixin):
    config_class = Config

    def __init__(self, config):
        super().__init__(config)
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.asked = []
        self.post_init()
"""

PROCESSOR = """
import numpy
import torch
from transformers import BatchFeature, ProcessorMixin


def channels(image):
    return torch.tensor(numpy.asarray(image)).permute(2, 0, 1) / 255


class Processor(ProcessorMixin):
    attributes = ["tokenizer"]
    tokenizer_class = "AutoTokenizer"

    def __init__(self, tokenizer, **options):
        super().__init__(tokenizer)
"""

INTERNVL = """
    def chat(self, tokenizer, pixel_values, question, generation_config, history=None,
             return_history=False, num_patches_list=None):
        assert "eos_token_id" not in generation_config
        self.asked.append((pixel_values, question, generation_config, num_patches_list))
        assert question.count("<image>") == len(num_patches_list or [])
        text = "none" if pixel_values is None else color(pixel_values[0])
        ids = tokenizer(text).input_ids[: generation_config["max_new_tokens"]]
        return tokenizer.decode(ids)
"""

MINICPMV = """
    def chat(self, image, msgs, tokenizer, processor=None, vision_hidden_states=None, max_new_tokens=2048,
             min_new_tokens=0, sampling=True, max_inp_length=8192, system_prompt="", stream=False,
             max_slice_nums=None, use_image_id=None, **kwargs):
        assert image is None and processor.tokenizer is tokenizer
        self.asked.append((msgs, system_prompt, sampling, kwargs))
        first = [part for part in msgs[0]["content"] if not isinstance(part, str)]
        text = color(processor.channels(first[0])) if first else "none"
        return tokenizer.decode(tokenizer(text).input_ids[:max_new_tokens])
"""

PHI3V = """
    def generate(self, input_ids, attention_mask, pixel_values=None, *, eos_token_id, pad_token_id,
                 max_new_tokens, num_beams, repetition_penalty, do_sample, temperature=1.0, top_p=1.0,
                 top_k=50):
        self.asked.append((input_ids, do_sample))
        tokenizer = AutoTokenizer.from_pretrained(self.config._name_or_path)
        text = "none" if pixel_values is None else color(pixel_values[0])
        new = [*tokenizer(text).input_ids, eos_token_id][:max_new_tokens]
        return torch.cat([input_ids, torch.tensor([new])], 1)
"""

MOLMO = """
    def generate_from_batch(self, batch, generation_config, tokenizer):
        assert generation_config.stop_strings == "<|endoftext|>"
        self.asked.append((batch["input_ids"], generation_config))
        text = color(batch["images"][0]) if "images" in batch else "none"
        new = [*tokenizer(text).input_ids, tokenizer.eos_token_id][: generation_config.max_new_tokens]
        return torch.cat([batch["input_ids"], torch.tensor([new])], 1)
"""

OVIS = """
    def get_text_tokenizer(self):
        return AutoTokenizer.from_pretrained(self.config._name_or_path)

    def get_visual_tokenizer(self):
        return self

    def preprocess_inputs(self, text_or_conversations, images, max_partition=9, generation_preface="",
                          return_labels=False, propagate_exception=True):
        import numpy

        assert text_or_conversations.count("<image>") == len(images)
        ids = torch.tensor(self.get_text_tokenizer()(text_or_conversations).input_ids)
        values = [torch.tensor(numpy.asarray(image)).permute(2, 0, 1) for image in images]
        return text_or_conversations, ids, torch.stack(values) / 255 if values else None

    def generate(self, inputs, pixel_values, attention_mask, eos_token_id, pad_token_id, max_new_tokens,
                 num_beams, repetition_penalty, do_sample):
        self.asked.append((inputs, pixel_values))
        assert attention_mask.all()
        text = "none" if pixel_values[0] is None else color(pixel_values[0][0])
        return torch.tensor([[*self.get_text_tokenizer()(text).input_ids, eos_token_id][:max_new_tokens]])
"""

CALL = """
    def __call__(self, text, images=None, return_tensors=None):
        tensors = dict(self.tokenizer(text, return_tensors=return_tensors))
        if images:
            tensors["pixel_values"] = torch.stack([channels(image) for image in images])
        return BatchFeature({name: tensors[name] for name in ("input_ids", "attention_mask", "pixel_values")
                             if name in tensors})
"""

PROCESS = """
    def process(self, text=None, images=None):
        ids = self.tokenizer(f" User: {text} Assistant:", return_tensors="pt").input_ids[0]
        return {"input_ids": ids, **({"images": channels(images[0])} if images else {})}
"""

KEEPS = """
    def channels(self, image):
        return channels(image)
"""

#: Of each family: its model type, the class through which it is loaded, its code, its processor's.
FAMILIES = {
    "internvl": ("internvl_chat", "AutoModel", INTERNVL, None),
    "minicpmv": ("minicpmv", "AutoModel", MINICPMV, KEEPS),
    "phi3v": ("phi3_v", "AutoModelForCausalLM", PHI3V, CALL),
    "molmo": ("molmo", "AutoModelForCausalLM", MOLMO, PROCESS),
    "ovis": ("ovis", "AutoModelForCausalLM", OVIS, None),
}
DEFAULTS = {
    "internvl_chat": {
        "force_image_size": 28,
        "dynamic_image_size": True,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 12,
    }
}
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def save(family: str, folder: Path) -> Path:
    """Write a family's checkpoint, code included."""
    kind, auto, code, processor = FAMILIES[family]
    folder.mkdir(parents=True)
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    defaults = DEFAULTS.get(kind, {})
    files = {
        "configuration.py": CONFIGURATION.format(kind=kind, defaults=defaults),
        "modeling.py": HEAD + code,
    }
    auto_map = {"AutoConfig": "configuration.Config", auto: "modeling.Model"}
    config = {"model_type": kind, "architectures": ["Model"], "auto_map": auto_map, "dtype": "float32"}
    if processor is not None:
        files["processing.py"] = PROCESSOR + processor
        of_processor = {"processor_class": "Processor", "auto_map": {"AutoProcessor": "processing.Processor"}}
        (folder / "processor_config.json").write_text(json.dumps(of_processor), encoding="utf-8")
    files["config.json"] = json.dumps(config)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    save_file({"scale": torch.ones(1)}, folder / "model.safetensors", {"format": "pt"})
    return folder
