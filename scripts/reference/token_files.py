"""Right values for test/unit/token-facts.test.ts, from transformers' AutoTokenizer.

    pip install transformers==5.18.0 jinja2
    python scripts/reference/token_files.py test/fixtures/tokenizer-ids.json test/fixtures/token-files.json

What the files beside tokenizer.json say about tokens, in every form that models have been published in: each case is a
directory of a small tokenizer and some such files, with the special tokens, the ids of a few texts and the chat templates
that transformers finds there.
"""

import json
import sys
import tempfile
from pathlib import Path

import transformers
from transformers import AutoTokenizer

TEXTS = ["<|im_start|>user\nthe<|im_end|>\n", "<s>the</s>", "a <X> b<Y>c", "[PAD]the", "Hello <|im_end|>"]


def token(content, **flags):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True, **flags}


def typed(content, **flags):
    return {"__type": "AddedToken", **token(content, **flags)}


def untyped(content):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


CONFIG, MAP, ADDED, JINJA = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"
MORE = "additional_chat_templates"
# name -> files. The tokenizer has 420 tokens: <s> 1 and </s> 2 among them, and no added ones but those two.
CASES = {
    "names in the config": {CONFIG: {"bos_token": "<s>", "eos_token": "</s>"}},
    "objects in the config": {CONFIG: {"bos_token": typed("<s>"), "eos_token": typed("</s>", lstrip=True)}},
    "names in the map only": {CONFIG: {}, MAP: {"bos_token": "<s>", "eos_token": untyped("</s>"), "pad_token": "</s>"}},
    "the map overrules the config": {CONFIG: {"eos_token": "<s>"}, MAP: {"eos_token": "</s>"}},
    "a list of added tokens silences the map": {CONFIG: {"eos_token": "<s>", "added_tokens_decoder": {"1": token("<s>")}}, MAP: {"eos_token": "</s>"}},
    "added_tokens_decoder": {CONFIG: {"added_tokens_decoder": {"420": token("<|im_start|>"), "421": token("<|im_end|>")}, "eos_token": "<|im_end|>"}},
    "added_tokens_decoder with flags": {CONFIG: {"added_tokens_decoder": {"420": token("<X>", special=False, lstrip=True), "421": token("<Y>", single_word=True)}}},
    "added_tokens_decoder beside added_tokens.json": {CONFIG: {"added_tokens_decoder": {"420": token("<X>")}}, ADDED: {"<Y>": 421}},
    "added_tokens_decoder overrules flags of tokenizer.json": {CONFIG: {"added_tokens_decoder": {"2": token("</s>", rstrip=True)}}},
    "added_tokens.json": {CONFIG: {"eos_token": "<|im_end|>"}, ADDED: {"<|im_start|>": 420, "<|im_end|>": 421}},
    "added_tokens.json, some special by the map": {CONFIG: {}, ADDED: {"<X>": 420, "<Y>": 421}, MAP: {"eos_token": "<Y>"}},
    "a padding token of its own": {CONFIG: {"eos_token": "</s>", "pad_token": "[PAD]"}},
    "additional_special_tokens": {CONFIG: {"eos_token": "</s>", "additional_special_tokens": ["<X>", "<Y>"]}},
    "extra_special_tokens by name": {CONFIG: {"extra_special_tokens": {"image_token": "<X>"}}},
    "extra_special_tokens as a list": {CONFIG: {"extra_special_tokens": ["<X>", "<Y>"]}},
    "a name of its own": {CONFIG: {"video_token": "<X>", "eos_token": "</s>"}},
    "special tokens are split": {CONFIG: {"eos_token": "</s>", "split_special_tokens": True}},
    "template in the config": {CONFIG: {"chat_template": "config"}},
    "templates in the config by name": {CONFIG: {"chat_template": [{"name": "default", "template": "usual"}, {"name": "tool_use", "template": "tools"}, {"name": "rag", "template": "rag"}]}},
    "no default template": {CONFIG: {"chat_template": [{"name": "tool_use", "template": "tools"}]}},
    "the file overrules the config": {CONFIG: {"chat_template": "config"}, JINJA: "file"},
    "the file overrules all templates of the config": {CONFIG: {"chat_template": [{"name": "default", "template": "usual"}, {"name": "tool_use", "template": "tools"}]}, JINJA: "file"},
    "more templates as files": {CONFIG: {"chat_template": "config"}, JINJA: "file", f"{MORE}/tool_use.jinja": "tools", f"{MORE}/rag.jinja": "rag"},
    "only more templates as files": {CONFIG: {"chat_template": "config"}, f"{MORE}/tool_use.jinja": "tools"},
    "a processor's template": {CONFIG: {}, "chat_template.json": {"chat_template": "processor"}},
}


def main(tokenizers, path):
    known = json.loads(Path(tokenizers).read_text())
    made = known["tokenizers"]["qwen"]
    base = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [{"id": 1, **token("<s>")}, {"id": 2, **token("</s>")}], "normalizer": None,
            "pre_tokenizer": made["pre_tokenizer"], "post_processor": None, "decoder": made["decoder"], "model": known["models"]["bytes"]}
    out = {"made_with": f"transformers {transformers.__version__}", "texts": TEXTS, "cases": {}}
    for name, files in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "tokenizer.json").write_text(json.dumps(base))
            written = {**files, CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast", **files[CONFIG]}}
            for file, content in written.items():
                Path(folder, file).parent.mkdir(exist_ok=True)
                Path(folder, file).write_text(content if isinstance(content, str) else json.dumps(content))
            tokenizer = AutoTokenizer.from_pretrained(folder)
        templates = []
        for tools in [None, []]:
            try:
                templates.append(tokenizer.get_chat_template(tools=tools))
            except ValueError:
                templates.append(None)
        out["cases"][name] = {
            "files": files,
            "special": tokenizer.special_tokens_map,
            "ids": [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS],
            "named": {key: getattr(tokenizer, f"{key}_id") for key in ["bos_token", "eos_token", "pad_token"]},
            "decoded": tokenizer.decode(tokenizer(TEXTS[0] + TEXTS[1] + TEXTS[2], add_special_tokens=False)["input_ids"], skip_special_tokens=True),
            "templates": templates,
        }
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(case, ensure_ascii=False)}" for name, case in out.pop("cases").items())
    head = json.dumps(out, ensure_ascii=False)[:-1]
    Path(path).write_text(f'{head}, "cases": {{\n{lines}\n}}}}\n')


main(*sys.argv[1:])
