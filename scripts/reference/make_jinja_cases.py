"""The right values of test/unit/jinja-reference.test.ts, rendered by Python's own jinja2: python make_jinja_cases.py

Needs jinja2 only. The environment is the one that transformers renders chat templates in (utils/chat_template_utils.py,
transformers 5.18): the immutable sandbox, trim_blocks and lstrip_blocks, loop controls, `generation` blocks, `tojson` as plain
json.dumps without escaping, and `raise_exception`.

    test/fixtures/jinja/templates/NAME.jinja     the templates, in the styles of published ones
    test/fixtures/jinja/conversations.json       what they are given
    test/fixtures/jinja/snippets.json            (made) variables, and [source, text, or null where Python raises]
    test/fixtures/jinja/rendered.json            (made) template -> conversation -> text, what a generation prompt adds, marks
"""

import copy
import json
import pathlib

import jinja2
import jinja2.ext
import jinja2.sandbox
from jinja_snippets import SNIPPETS, VARIABLES

root = pathlib.Path(__file__).parent.parent.parent / "test/fixtures/jinja"


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def __init__(self, environment):
        super().__init__(environment)
        self.blocks, self.marks = [], []
        environment.tracker = self

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_generated"), [], [], body).set_lineno(line)

    def _generated(self, caller):
        text = caller()
        start = len("".join(self.blocks))
        self.marks.append([start, start + len(text)])
        return text


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
)
environment.filters["tojson"] = tojson
environment.globals["raise_exception"] = raise_exception
environment.globals["strftime_now"] = lambda format: __import__("datetime").datetime(2024, 7, 26).strftime(format)


def render(source, **variables):
    tracker = environment.tracker
    tracker.blocks, tracker.marks = [], []
    for block in environment.from_string(source).generate(**variables):
        tracker.blocks.append(block)
    return "".join(tracker.blocks), tracker.marks


def attempt(source, **variables):
    try:
        return render(source, **variables)[0]
    except Exception:
        return None


def write(name, value):
    # A line for each entry, so that a change can be read.
    if isinstance(value, dict):
        lines = [json.dumps(key, ensure_ascii=False) + ": " + json.dumps(item, ensure_ascii=False) for key, item in value.items()]
        text = "{\n" + ",\n".join(lines) + "\n}\n"
    else:
        text = "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in value) + "\n]\n"
    (root / name).write_text(text, encoding="utf-8")
    print(name, len(value), "entries,", len(text.encode()) // 1024, "KiB")


def main():
    context = {**VARIABLES, "bos_token": "<s>", "eos_token": "</s>", "tools": None}
    results = [[source, attempt(source, **copy.deepcopy(context))] for source in dict.fromkeys(SNIPPETS)]
    # What Python prints with an address in it is different each time, so there is no right text; it must be refused.
    results = [[source, None if text is not None and " at 0x" in text else text] for source, text in results]
    write("snippets.json", [context, *results])

    conversations = json.loads((root / "conversations.json").read_text(encoding="utf-8"))
    rendered = {}
    for path in sorted((root / "templates").glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        for name, conversation in conversations.items():
            variables = {"tools": None, "documents": None, "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", **conversation}
            try:
                text, marks = render(source, **variables, add_generation_prompt=False)
            except Exception:
                rendered[f"{path.stem} {name}"] = None
                continue
            prompt = attempt(source, **variables, add_generation_prompt=True)
            case = {"text": text, "marks": marks}
            if prompt is not None and prompt.startswith(text):
                case["added"] = prompt[len(text) :]
            else:
                case["prompt"] = prompt
            rendered[f"{path.stem} {name}"] = case
    write("rendered.json", rendered)


main()
