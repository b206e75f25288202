"""Right values for test/unit/tokenizer-equality.test.ts, from Python's `tokenizers` (see the file's `made_with`).

    pip install tokenizers==0.23.2
    python scripts/reference/tokenizer_ids.py test/fixtures/tokenizer-ids.json

Small models are trained on a few sentences, and many tokenizers are made of them: one for every flag, option, step and
kind of model that tokenizer.json knows. Each encodes the same odd texts. The file holds, for every tokenizer, its steps
(its model by name), the ids of every text, those that special tokens put around them, and for some texts where the tokens
end and what they decode to. `RANDOM=SEED` takes random texts instead, many more than a test wants to keep.
"""

import json
import os
import random
import sys
import unicodedata

import tokenizers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers, decoders, normalizers

CORPUS = """the quick brown fox jumps over the lazy dog. The theatre there, then them; hello world hello there!
def main(argument): return argument + 1  # tabs\tand    spaces
I'm you're we've he'll she'd it's don't 2024 1234567 3.14 naïve café résumé über straße ΑΣ ΣΑΣ
user assistant system you are a helpful assistant <A> <B> words in words and wordless wording
the the the hello hello world world 12 12 345 345 a b c d e f g h i j k l m n o p q r s t u v w x y z
A B C D E F G H I J K L M N O P Q R S T U V W X Y Z 0 1 2 3 4 5 6 7 8 9""".split("\n")

TEXTS = [
    "", " ", "  ", "\n", "a", " a", "a ", "Hello world", "hello  world   again", "the theatre there", "\tTabs\tand\n\nlines\r\nend\r\n",
    "<A>", "<A><A>", "<A> <B>", "Hello<A>there", "Hello <A> there", "hello  <A>  there", "x<A>", "<A>x", "_<A>_", "é<A>", "(<A>)", "<a>", "<A", "<A>B>",
    "word <B> word", "words<B>", "<B>words", " <B> ", "\n<B>\n", "a\u00a0<B>\u2003b", "\ufeff<A>\ufeff", "\u200d<A>", "<C>the<C>", "THE<C>", "<D>\u0301", "the</s>the", "<s>the", "<s> the </s>\n",
    "naïve café résumé", "na\u0308ive cafe\u0301", "ÀÉÎÕÜ ÇÑ", "Straße STRASSE ß ẞ", "ΑΣ ΣΑΣ ς σ", "İstanbul I i ı", "ſ K Å ﬁ ﬂ ﬃ", "it'ſ IT'S He'LL we'Ve I'M",
    "１２３ ａｂｃ～～", "² ³ ½ Ⅷ ٣ ৪ 一二", "1234567 12,345.67 v1.2.3", "x\u0085y\u2028z\u2029w", "a\x1cb\x1db\x1eb\x1fb", "a\u200bb\u200cc\u200dd\u2060e", "\u3000wide\u3000space", "a\ufeffb", "\ufeffa",
    "👩\u200d👩\u200d👧 🏳️\u200d🌈 🇩🇪", "한국어 \u1112\u1161\u11ab", "日本語のテキスト、です。", "中文，测试！", "שלום עולם مرحبا بالعالم", "हिन्दी ภาษาไทย",
    "a_b_c snake_case __init__", "foo(bar, baz) != [x for x in y]", "--the-final--countdown--", "!!!???...;;;", "“quotes” ‘single’ — dash… $€£ ©®™ +=<>|~^`", "a\x00b\x01\x7f\x9f\ufffd", "don't can't won't y'all's",
    "▁the▁", "a▁b", "▁", "<0x41>", "Ġthe", "##the", "ing</w>", "\u0301a", "e\u0323\u0301", "ǅ ǆ Ǆ", "Ω Ω", "the\nthe \n the\n \nthe", "   leading", "trailing   ", "é" * 20, "ab" * 40, "…" * 3 + "\n" * 5 + " " * 7 + "x",
]
LETTERS = [*"  \t\n\r.-_'aeisTHE12,<>", "<A>", "<B>", "the", "world", "\u00a0", "\u0085", "\u2028", "\u3000", "\ufeff", "\u200b", "\u200d", "\x1c", "\x0b", "\x00", "é", "e\u0301", "ſ", "K", "İ", "Σ", "ß", "½", "٣", "Ⅷ",
           "中", "あ", "ー", "한", "👩\u200d👧", "…", "“", "$", "^", "▁", "Ġ", "<s>", "</s>", "<C>", "<D>", "café", "\u0308", "\U00010400", "𝔸", "ǅ", "'ll", "'S", "don't", "word", "123", "\r\n"]
# Where tokens end is kept for these, and what their ids decode to.
SHOWN = [8, 13, 15, 18, 25, 28, 38, 39, 42, 49, 54, 57, 70, 83]


def added(content, **flags):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False, **flags}


SPECIALS = [added("<s>", special=True), added("</s>", special=True)]
A, B, C, D = added("<A>"), added("<B>"), added("<C>"), added("<D>")


def trained(model, trainer, pre, corpus=CORPUS, normalizer=None):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(corpus, trainer)
    return json.loads(tokenizer.to_str())["model"]


def make_models():
    names = ["<unk>", "<s>", "</s>"]
    byte = pre_tokenizers.ByteLevel(add_prefix_space=False)
    meta = pre_tokenizers.Metaspace()
    found = {
        "bytes": trained(models.BPE(), trainers.BpeTrainer(vocab_size=420, special_tokens=names, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False), byte),
        "letters": trained(models.BPE(unk_token="<unk>"), trainers.BpeTrainer(vocab_size=260, special_tokens=names, show_progress=False), meta),
        "suffix": trained(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"), trainers.BpeTrainer(vocab_size=260, special_tokens=names, end_of_word_suffix="</w>", show_progress=False), pre_tokenizers.Whitespace()),
        "prefix": trained(models.BPE(unk_token="<unk>", continuing_subword_prefix="##"), trainers.BpeTrainer(vocab_size=300, special_tokens=names, continuing_subword_prefix="##", show_progress=False), pre_tokenizers.Whitespace()),
        "unigram": trained(models.Unigram(), trainers.UnigramTrainer(vocab_size=200, special_tokens=names, unk_token="<unk>", show_progress=False), meta),
        "pieces": trained(models.WordPiece(unk_token="<unk>"), trainers.WordPieceTrainer(vocab_size=250, special_tokens=names, show_progress=False), pre_tokenizers.Whitespace()),
        "words": trained(models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(vocab_size=120, special_tokens=names, show_progress=False), pre_tokenizers.Whitespace()),
    }
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    # Merges that reach over "▁", as those of SentencePiece models that were trained on whole lines.
    spm = json.loads(json.dumps(found["letters"]))
    spm["vocab"] = {token: i for i, token in enumerate(names + bytes_ + [t for t in spm["vocab"] if t not in names] + ["▁the▁"])}
    spm["merges"] += [["▁the", "▁"]]
    spm.update(byte_fallback=True, fuse_unk=True)
    found["spm"] = spm
    few = json.loads(json.dumps(found["letters"]))  # some bytes only: those of é, and no others
    few["vocab"] = {token: i for i, token in enumerate([*few["vocab"], "<0xC3>", "<0xA9>"])}
    few.update(byte_fallback=True)
    found["few-bytes"] = few
    uni = json.loads(json.dumps(found["unigram"]))
    uni["vocab"] = uni["vocab"][:3] + [[b, -20.0] for b in bytes_] + uni["vocab"][3:]
    uni["byte_fallback"] = True
    found["unigram-bytes"] = uni
    return found


QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
OSS = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
POSSESSIVE = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
CJK = r"[一-龥぀-ゟ゠-ヿ]+"
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2 = {**BYTES, "use_regex": True}
BYTES_OUT = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
META = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
SPM_OUT = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
SPM_IN = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}


def steps(*list_):
    return {"type": "Sequence", "pretokenizers": list(list_)}


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def template(single, ids):
    piece = lambda name: {"Sequence": {"id": "A", "type_id": 0}} if name == "A" else {"SpecialToken": {"id": name, "type_id": 0}}
    return {"type": "TemplateProcessing", "single": [piece(n) for n in single], "pair": [piece(n) for n in single] + [{"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {n: {"id": n, "ids": [i], "tokens": [n]} for n, i in ids.items()}}


def make_tokenizers():
    """name -> model's name and the other parts."""
    t = {}

    def put(name, model="bytes", pre=None, normalizer=None, post=None, decoder=None, tokens=(A, B, C, D), **changes):
        t[name] = {"model": model, "changes": changes, "added_tokens": [*SPECIALS, *tokens], "normalizer": normalizer, "pre_tokenizer": pre, "post_processor": post, "decoder": decoder}

    byte = lambda *cuts: steps(*cuts, BYTES)
    # families
    put("qwen", pre=byte(split(QWEN)), normalizer={"type": "NFC"}, decoder=BYTES_OUT, post=BYTES_OUT)
    put("llama3", pre=byte(split(LLAMA)), decoder=BYTES_OUT, post={"type": "Sequence", "processors": [BYTES_OUT, template(["<s>", "A"], {"<s>": 1})]}, ignore_merges=True)
    put("gpt2", pre=GPT2, decoder=BYTES_OUT)
    put("gpt2 prefix", pre={**GPT2, "add_prefix_space": True}, decoder=BYTES_OUT)
    put("gpt-oss", pre=byte(split(OSS)), decoder=BYTES_OUT)
    put("deepseek", pre=byte(split(r"\p{N}{1,3}"), split(CJK), split("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+")), decoder=BYTES_OUT)
    put("deepseek digits", pre=steps(split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), {"type": "Digits", "individual_digits": True}, BYTES), decoder=BYTES_OUT)
    put("starcoder", pre=steps({"type": "Digits", "individual_digits": True}, GPT2), decoder=BYTES_OUT)
    put("possessive", pre=byte(split(POSSESSIVE)), decoder=BYTES_OUT)
    put("superbpe", pre=byte(split(r"(?=(\d{3})+(?!\d))"), split(r"\p{N}+| ?[^\p{N}]+")), decoder=BYTES_OUT)
    put("llama2", "spm", normalizer=SPM_IN, post=template(["<s>", "A"], {"<s>": 1}), decoder=SPM_OUT)
    put("llama2 metaspace", "spm", pre={**META, "prepend_scheme": "first", "split": False}, post=template(["<s>", "A", "</s>"], {"<s>": 1, "</s>": 2}), decoder=SPM_OUT)
    put("gemma", "spm", normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "▁"}, pre=split(" ", "MergedWithPrevious", kind="String"), post=template(["<s>", "A"], {"<s>": 1}), decoder={"type": "Sequence", "decoders": SPM_OUT["decoders"][:3]})
    put("t5", "unigram", pre=META, post=template(["A", "</s>"], {"</s>": 2}), decoder={**META})
    put("llm-jp", "unigram-bytes", pre={**META, "prepend_scheme": "never"}, decoder=SPM_OUT)
    put("bert", "pieces", normalizer={"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}, pre={"type": "BertPreTokenizer"},
        post={"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]}, decoder={"type": "WordPiece", "prefix": "##", "cleanup": True})
    put("roberta", pre={**GPT2, "add_prefix_space": True}, post={"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": True, "add_prefix_space": True}, decoder=BYTES_OUT)
    put("gpt1", "suffix", normalizer={"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}, pre={"type": "BertPreTokenizer"}, decoder={"type": "BPEDecoder", "suffix": "</w>"})
    # added tokens
    flags = lambda **f: [added("<A>", **f), added("<B>", **f), added("<C>", **f), added("<D>", **f)]
    for name, f in {"single word": {"single_word": True}, "lstrip": {"lstrip": True}, "rstrip": {"rstrip": True}, "both strips": {"lstrip": True, "rstrip": True},
                    "single word strips": {"single_word": True, "lstrip": True, "rstrip": True}, "special": {"special": True}}.items():
        put(f"added {name}", pre=byte(split(QWEN)), tokens=flags(**f), decoder=BYTES_OUT)
        put(f"added {name} spm", "spm", normalizer=SPM_IN, tokens=flags(**f), decoder=SPM_OUT)
    for name, normalizer in {"lower": {"type": "Lowercase"}, "spm": SPM_IN, "nfd": {"type": "NFD"}}.items():
        put(f"normalized {name}", "spm" if name == "spm" else "bytes", pre=None if name == "spm" else byte(split(QWEN)), normalizer=normalizer,
            tokens=[added("<A>", normalized=True), added("<B>", normalized=True, lstrip=True), added("THE", normalized=True), added("café", normalized=True, single_word=True)], decoder=SPM_OUT if name == "spm" else BYTES_OUT)
    put("added words", pre=byte(split(QWEN)), tokens=[added("the"), added("there"), added("world", single_word=True), added(" <B>"), added("<A><A>"), A], decoder=BYTES_OUT)
    put("added metaspace first", "spm", pre={**META, "prepend_scheme": "first"}, tokens=[added("<A>", normalized=True), B], decoder=SPM_OUT)
    # ways to cut
    for behavior in ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
        put(f"split {behavior}", pre=byte(split(r"\s", behavior)), decoder=BYTES_OUT)
        put(f"split {behavior} inverted", pre=byte(split(r"\w+|[^\w\s]+", behavior, True)), decoder=BYTES_OUT)
        put(f"split string {behavior}", pre=byte(split("-", behavior, kind="String")), decoder=BYTES_OUT)
        put(f"punctuation {behavior}", "pieces", pre=steps({"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": behavior}))
    put("split empty matches", pre=byte(split(r"\d*")))
    put("split boundary", pre=byte(split(r"\b")))
    put("whitespace", "words", pre={"type": "Whitespace"})
    put("whitespace split", "pieces", pre={"type": "WhitespaceSplit"}, decoder={"type": "WordPiece", "prefix": "##", "cleanup": False})
    put("delimiter", "pieces", pre={"type": "CharDelimiterSplit", "delimiter": "-"})
    put("digits", pre=byte({"type": "Digits", "individual_digits": False}))
    put("classes", pre=byte(split(r"[\w&&[^\d_]]+|\d+|[[:punct:]]|\h")))
    put("lookbehind", pre=byte(split(r"(?<=[a-z])(?=[A-Z])|(?<!\s)\n|\p{Han}+|^x|e$")))
    put("scripts", "pieces", pre={"type": "UnicodeScripts"})
    put("fixed", pre=byte({"type": "FixedLength", "length": 5}))
    for scheme in ["always", "first", "never"]:
        put(f"metaspace {scheme}", "letters", pre={**META, "prepend_scheme": scheme}, decoder={**META, "prepend_scheme": scheme})
        put(f"metaspace {scheme} whole", "spm", pre={**META, "prepend_scheme": scheme, "split": False}, decoder={**META, "prepend_scheme": scheme})
    put("metaspace words", "letters", pre=steps({"type": "WhitespaceSplit"}, {**META, "prepend_scheme": "first"}))
    # normalizers
    for name, n in {"nfd": {"type": "NFD"}, "nfkc": {"type": "NFKC"}, "nfkd": {"type": "NFKD"}, "lowercase": {"type": "Lowercase"}, "strip": {"type": "Strip", "strip_left": True, "strip_right": True},
                    "strip left": {"type": "Strip", "strip_left": True, "strip_right": False}, "prepend": {"type": "Prepend", "prepend": "$& "},
                    "accents": {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]}, "replace": {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": "$1 $&"},
                    "replace string": {"type": "Replace", "pattern": {"String": "a.b"}, "content": "-"}, "nmt": {"type": "Nmt"}, "bytes": {"type": "ByteLevel"}}.items():
        put(f"normalizer {name}", pre=None if name == "bytes" else byte(split(QWEN)), normalizer=n, decoder=BYTES_OUT)
    put("bert cased", "pieces", normalizer={"type": "BertNormalizer", "clean_text": False, "handle_chinese_chars": False, "strip_accents": True, "lowercase": False}, pre={"type": "BertPreTokenizer"})
    # models
    put("letters unk", "letters", pre=META)
    put("letters fused", "letters", pre=META, fuse_unk=True)
    put("letters none", "letters", pre=META, unk_token=None)
    put("few bytes", "few-bytes", pre=META)
    put("few bytes fused", "few-bytes", pre=META, fuse_unk=True)
    put("prefix", "prefix", pre={"type": "Whitespace"})
    put("ignore merges", "spm", normalizer=SPM_IN, ignore_merges=True)
    put("no steps", "letters")
    put("pieces short", "pieces", pre={"type": "Whitespace"}, max_input_chars_per_word=5)
    # last steps and decoders
    put("template twice", pre=GPT2, post=template(["<s>", "<s>", "A", "</s>"], {"<s>": 1, "</s>": 2}), decoder=BYTES_OUT)
    put("ctc", "letters", pre=META, decoder={"type": "CTC", "pad_token": "<s>", "word_delimiter_token": "▁", "cleanup": True})
    put("strip decoder", "letters", pre=META, decoder={"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"Regex": "[▁e]"}, "content": "_"}, {"type": "Strip", "content": "_", "start": 1, "stop": 0}]})
    return t


# What Oniguruma reads otherwise than JavaScript does: classes, anchors, what gives nothing back, case, empty matches.
PATTERNS = [
    r"\s+", r"\S+", r"\w+", r"\W", r"\d+", r"\D+", r"\h+", r"[[:alpha:]]+", r"[[:alnum:]]+", r"[[:digit:]]", r"[[:lower:]]+",
    r"[[:upper:]]+", r"[[:space:]]", r"[[:blank:]]", r"[[:punct:]]", r"[[:cntrl:]]", r"[[:word:]]+", r"[[:xdigit:]]+",
    r"[^[:space:]]+", r"\p{Han}+|\p{Hiragana}+|\p{Katakana}+", r"\p{^L}+", r"\P{L}+", r"\p{Punct}", r"\p{Alpha}+", r"\p{Lu}\p{Ll}*",
    r"^.", r".$", r"^", r"$", r"\A.", r".\z", r".\Z", r"\b", r"\B", r"(?i:the)", r"(?i)the|world", r"a(?i)b|c", r"(?i:'s|'t|'ll)",
    r"(?i:[a-c]+)", r"(?i:k)", r"(?>a+)b", r"a++b?", r"\s*+$", r"x?+x", r"[a-z&&[^aeiou]]+", r"[^a-z&&[^0-9]]+", r"[\w&&[^\d]]+",
    r"[a\-z]", r"[-az]", r"[az-]", r"[\]\[]", r"[\s\p{P}]+", r"(?=a)", r"(?<=a)b", r"(?<!a)b", r"(?!\s).", r"a{2}", r"a{1,2}",
    r"a{,2}b", r"\p{N}{1,3}+", r"(a|b)+", r"(?:a|bc)*?c", r".*?\s", r"\x41|\x{1F600}|\u00e9", r"\t|\n|\r|\f|\v", r"[\t\n\r]",
    r"\/|\-|\#|\ ", r"[\W]+", r"[^\w\s]+", r"[\S]+", r"[^\S\n]+", r"[a-c[x-z]]+", r"[[:^alpha:]]+", r"{a}", r"a{", r"]", r"\p{M}+",
    r"[\p{L}\p{M}]+", r" ?[^\s\p{L}\p{N}\r\n]+", r"(?:\r\n|\n)+", r"(?<=\p{L})(?=\p{N})", r"\p{Greek}+", r"\p{Cyrillic}",
    r"\p{Arabic}+", r"\p{Letter}+", r"\p{Emoji}", r"\p{Any}", r"[é-í]+", r"\w{2,}?",
]
PATTERN_TEXTS = ["The 12 cafés,\r\nin İstanbul: x²=½ and ٣4;", "a\u0085b\u2028 c\u200dd\ufeffe\x1cf\n\n", "aab ab aaab {a} a{ [x] b-a/#$&^ az-", "中文とカタカナー한국어 Ωμέγα я مرحبا",
                 "it'S 'ſ 'LL Kk THE the tHe", "😀👩\u200d👧…“q” e\u0301ª·‿_\t ", "fooBar42Baz\n\tSnake_case __x__  1234567"]


# A place inside of what these normalizers write anew has no one answer.
NO_ENDS = {"normalizer replace", "letters none", "normalizer nfkc"}


def main(path):
    texts, shown = TEXTS, SHOWN
    if os.environ.get("RANDOM"):
        source = random.Random(int(os.environ["RANDOM"]))
        texts = ["".join(source.choice(LETTERS) for _ in range(source.randint(1, 24))) for _ in range(150)]
        shown = list(range(60))
    bases = make_models()
    out = {"made_with": f"tokenizers {tokenizers.__version__}", "texts": texts, "shown": shown, "models": bases, "tokenizers": {}}
    for name, parts in make_tokenizers().items():
        model = {**bases[parts["model"]], **parts["changes"]}
        listed = isinstance(model["vocab"], list)
        ids = {token: i for i, (token, _) in enumerate(model["vocab"])} if listed else model["vocab"]
        next_id = len(ids)
        tokens = []
        for token in parts["added_tokens"]:
            tokens.append({"id": ids.get(token["content"], next_id), **token})
            next_id += token["content"] not in ids
        steps = {key: parts[key] for key in ["normalizer", "pre_tokenizer", "post_processor", "decoder"]}
        tokenizer = Tokenizer.from_str(json.dumps({"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens, **steps, "model": model}))
        # Flags that are off are left out.
        brief = [{key: value for key, value in token.items() if value is not False} for token in tokens]
        entry = {"model": parts["model"], "changes": parts["changes"], "added_tokens": brief, **steps, "ids": [], "around": None, "ends": {}, "decoded": [], "skipped": {}}
        for i, text in enumerate(texts):
            plain = tokenizer.encode(text, add_special_tokens=False)
            special = tokenizer.encode(text, add_special_tokens=True).ids
            entry["ids"].append(plain.ids)
            if text == "a":
                at = next(i for i in range(len(special)) if special[i : i + len(plain.ids)] == plain.ids)
                entry["around"] = [special[:at], special[at + len(plain.ids) :]]
            if i not in shown:
                continue
            # Of a letter and an accent that become one, the library says that the one is the letter.
            if name not in NO_ENDS and unicodedata.normalize("NFC", text) == text:
                entry["ends"][i] = [end for _, end in plain.offsets]
            entry["decoded"].append(tokenizer.decode(plain.ids, skip_special_tokens=False))
            skipped = tokenizer.decode(special, skip_special_tokens=True)
            if skipped != entry["decoded"][-1]:
                entry["skipped"][i] = skipped
        out["tokenizers"][name] = entry
    out["patternTexts"] = PATTERN_TEXTS
    # Lengths of the pieces, in code points.
    cut = lambda pattern, text: [len(piece) for piece, _ in pre_tokenizers.Split(Regex(pattern), "isolated").pre_tokenize_str(text)]
    out["patterns"] = {pattern: [cut(pattern, text) for text in PATTERN_TEXTS] for pattern in PATTERNS}
    text = json.dumps(out, ensure_ascii=False, separators=(",", ":")).replace('"added_tokens"', '\n"added_tokens"').replace('"texts"', '\n"texts"').replace('"models"', '\n"models"').replace('"ids"', '\n"ids"')
    with open(path, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    print(f"{len(out['tokenizers'])} tokenizers, {len(texts)} texts, {len(text.encode())} bytes", file=sys.stderr)


main(sys.argv[1])
