#!/usr/bin/env python3
"""Compares `krait tokenize` with the tokenizers package, both ways, on mixed Unicode made from a seed.

usage: compare_tokenizers.py KRAIT TOKENIZER.json... [--seed N] [--bytes N] [--variants [--only NAME]]

--variants also compares other normalizers, pre-tokenizers, post-processors and decoders on the first vocabulary.
Exit code 0: no difference.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import unicodedata

from tokenizers import Tokenizer

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
PREFIX = r"[^\r\n\p{L}\p{N}]?"
TEKKEN = (rf"{PREFIX}{UPPER}*{LOWER}+|{PREFIX}{UPPER}+{LOWER}*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")

SCRIPTS = [(0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x531, 0x586), (0x5D0, 0x5EA),
           (0x620, 0x6D3), (0x710, 0x72F), (0x900, 0x97F), (0x980, 0x9FF), (0xB80, 0xBFF), (0xC00, 0xC7F), (0xD00, 0xD7F),
           (0xE01, 0xE5B), (0xE80, 0xEFF), (0xF40, 0xFBC), (0x1000, 0x109F), (0x10A0, 0x10FF), (0x1100, 0x11FF),
           (0x1200, 0x137C), (0x13A0, 0x13FF), (0x1780, 0x17F9), (0x1800, 0x18AA), (0x1E00, 0x1EFF), (0x1F00, 0x1FFF),
           (0x2C00, 0x2C5F), (0x3041, 0x30FF), (0x3105, 0x312F), (0x4E00, 0x9FFF), (0xA000, 0xA48C), (0xAC00, 0xD7A3),
           (0xF900, 0xFAD9), (0xFB00, 0xFB4F), (0xFE70, 0xFEFC), (0xFF01, 0xFFEE), (0x10280, 0x1031F), (0x10400, 0x1044F),
           (0x11000, 0x1107F), (0x11900, 0x11946), (0x1D400, 0x1D7FF), (0x20000, 0x2A6DF), (0x2F800, 0x2FA1D)]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\r", " \n", "\n ", "\v", "\f", "\x85", "\xa0", "\u1680", "\u180e",
          "\u2003", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff", "\u200b", " " * 30, "\n" * 7, "\t\t \r\n\n "]
WORDS = ["the", "The", "don't", "we'll", "I'VE", "it'S", "they\u2019re", "caf\u00e9", "cafe\u0301", "naive", "x'\u017f",
         "'s", "'", "''", "'re've", "HTTPServer", "camelCase", "snake_case", "3.14", "1,000,000", "2024-01-01", "a1b2", "$5", "100%",
         "hello!!!", "...", "//", "/*\n", "<|endoftext|>", "<|endoftext", "<|padding|>", "e.g.", "\u00bd", "\u0663\u0664", "\u2167",
         "\u216b", "\u00b2", "\ud55c\uad6d\uc5b4", "\u1112\u1161\u11ab", "\u212b", "\u03a9\u2126", "\ufb01", "\u1e9b\u0323", "\u0344"]
EMOJI = ["\U0001F600", "\U0001F468\u200d\U0001F469\u200d\U0001F467\u200d\U0001F466", "\U0001F1E9\U0001F1EA", "\u2764\ufe0f",
         "\U0001F44D\U0001F3FD", "\U0001F3F4\U000E0067\U000E0062\U000E007F", "1\ufe0f\u20e3", "\u263a", "\U0001FAE8"]
MARKS = [c for c in range(0x300, 0x1E944) if unicodedata.combining(chr(c))]


def letter(rng, script):
    return chr(rng.randint(*script))


def any_char(rng):
    while True:
        c = rng.randrange(0x110000)
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def fragment(rng):
    kind = rng.randrange(16)
    if kind < 4:
        script = rng.choice(SCRIPTS)
        return "".join(letter(rng, script) for _ in range(rng.randint(1, 12)))
    if kind < 6:
        return rng.choice(WORDS)
    if kind < 8:
        return rng.choice(SPACES)
    if kind == 8:
        return rng.choice(EMOJI)
    if kind == 9:
        base = letter(rng, rng.choice(SCRIPTS))
        return base + "".join(chr(rng.choice(MARKS)) for _ in range(rng.randint(1, 5)))
    if kind == 10:
        return "".join(rng.choice("0123456789") for _ in range(rng.randint(1, 9)))
    if kind == 11:
        return chr(rng.randrange(0x20)) + chr(rng.randrange(0x7F, 0xA1))
    if kind == 12:
        return any_char(rng) + any_char(rng)
    if kind == 13:
        return "".join(rng.choice("!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~'") for _ in range(rng.randint(1, 6)))
    if kind == 14:
        return rng.choice("aA0 .\n\u00e9\u4e2d\u0301") * rng.choice([1, 2, 3, 50, 300] if rng.random() < 0.1 else [1, 2, 3])
    return unicodedata.normalize(rng.choice(["NFD", "NFC"]), letter(rng, rng.choice(SCRIPTS)) + letter(rng, (0x300, 0x36F)))


def mixed_text(seed, size):
    rng = random.Random(seed)
    parts, total = [], 0
    while total < size:
        s = fragment(rng) + (" " if rng.random() < 0.4 else "")
        parts.append(s)
        total += len(s.encode())
    return "".join(parts)


def broken_bytes(seed, size):
    rng = random.Random(seed)
    raw = bytearray(mixed_text(seed, size).encode())
    for _ in range(size // 50):
        at = rng.randrange(len(raw))
        if rng.random() < 0.5:
            raw[at] = rng.randrange(256)
        else:
            del raw[at]
    return bytes(raw)


class Krait:
    def __init__(self, program, folder):
        self.program, self.file = program, os.path.join(folder, "input")

    def run(self, arguments, data):
        with open(self.file, "wb") as f:
            f.write(data)
        lossy = [] if "--decode" in arguments else ["--lossy-utf8"]  # there is text that is not UTF-8 on purpose
        done = subprocess.run([self.program, "tokenize", *lossy, *arguments, "-f", self.file], capture_output=True)
        if done.returncode != 0:
            raise SystemExit(f"krait tokenize failed ({done.returncode}): {done.stderr.decode()}")
        return done.stdout

    def encode(self, model, data, *flags):
        return json.loads(self.run([model, "--json", *flags], data))["ids"]

    def decode(self, model, ids):
        return self.run([model, "--decode"], " ".join(map(str, ids)).encode())


def first_difference(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def report(what, ours, theirs, show):
    if ours == theirs:
        return 0
    i = first_difference(ours, theirs)
    print(f"DIFFERENT {what} at {i} of {len(ours)} / {len(theirs)}: ours {show(ours[i:i + 8])} theirs {show(theirs[i:i + 8])}")
    return 1


def compare(krait, path, text, raw, seed, slices):
    peer = Tokenizer.from_file(path)
    peer.no_truncation()
    peer.no_padding()
    name = os.path.basename(os.path.dirname(path)) + "/" + os.path.basename(path)
    rng = random.Random(seed)
    pieces = lambda ids: [peer.id_to_token(i) for i in ids]
    bad = 0

    def both_ways(what, data, flags=()):
        seen = data.decode("utf-8", "replace")
        try:
            ids = peer.encode(seen, add_special_tokens="--special" in flags).ids
        except BaseException as e:  # a panic of the package is no Exception
            if isinstance(e, KeyboardInterrupt):
                raise
            print(f"not compared: {name} {what}: the package fails: {e}")
            return 0
        wrong = report(f"{name} {what} encode", krait.encode(path, data, *flags), ids, pieces)
        back = peer.decode(ids, skip_special_tokens=False).encode()
        return wrong + report(f"{name} {what} decode", krait.decode(path, ids), back, bytes)

    bad += both_ways("text", text.encode(), ["--special"])
    bad += both_ways("invalid UTF-8", raw)
    for i in range(slices):
        at, n = rng.randrange(len(text)), rng.randint(0, 2000)
        bad += both_ways(f"slice {i}", text[at:at + n].encode(), ["--special"] if i % 2 else [])
    known = [i for i in range(peer.get_vocab_size()) if peer.id_to_token(i) is not None]
    for i in range(slices):
        ids = [rng.choice(known) for _ in range(rng.randint(1, 400))]
        theirs = peer.decode(ids, skip_special_tokens=False).encode()
        bad += report(f"{name} random ids {i}", krait.decode(path, ids), theirs, bytes)
    print(f"{'ok  ' if bad == 0 else 'FAIL'} {name}: {len(text.encode())} bytes, {bad} differences", flush=True)
    return bad


def variants():
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = lambda regex, behavior="Isolated", invert=False: {
        "type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}
    sequence = lambda *stages: {"type": "Sequence", "pretokenizers": list(stages)}
    for name, regex in [("llama3", LLAMA3), ("qwen2", QWEN2), ("tekken", TEKKEN), ("gpt2", GPT2)]:
        yield name, {"pre_tokenizer": sequence(split(regex), byte_level)}
        yield name + "-removed-invert", {"pre_tokenizer": sequence(split(regex, "Removed", True), byte_level)}
        yield name + "-pcre", {"pre_tokenizer": sequence(split("(?:" + regex + ")"), byte_level)}
    yield "prefix-space", {"pre_tokenizer": {**byte_level, "add_prefix_space": True, "use_regex": True}}
    for behavior in ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
        for invert in [False, True]:
            yield f"digits-{behavior}-{invert}", {"pre_tokenizer": sequence(split(r"\d|\s", behavior, invert), byte_level)}
        yield f"punctuation-{behavior}", {
            "pre_tokenizer": sequence({"type": "Punctuation", "behavior": behavior}, byte_level)}
        yield f"string-{behavior}", {"pre_tokenizer": sequence(
            {"type": "Split", "pattern": {"String": " "}, "behavior": behavior, "invert": False}, byte_level)}
    yield "lookahead", {"pre_tokenizer": sequence(split(r"(?=(?:\d{3})+(?!\d))"), byte_level)}
    yield "words", {"pre_tokenizer": sequence({"type": "Whitespace"}, byte_level)}
    yield "word-regex", {"pre_tokenizer": sequence(split(r"\w+|[^\w\s]+|^\s+$"), byte_level)}
    yield "whitespace-split", {"pre_tokenizer": sequence({"type": "WhitespaceSplit"}, byte_level)}
    for each in [False, True]:
        yield f"digits-{each}", {"pre_tokenizer": sequence(
            {"type": "Digits", "individual_digits": each}, {**byte_level, "use_regex": True})}
    yield "falcon", {"pre_tokenizer": sequence(
        {"type": "Punctuation", "behavior": "Contiguous"}, {**byte_level, "use_regex": True},
        {"type": "Digits", "individual_digits": False}, split("[0-9][0-9][0-9]"))}
    for form in ["NFD", "NFKC", "NFKD", "NFC"]:
        yield form, {"normalizer": {"type": form}}
    yield "lowercase", {"normalizer": {"type": "Lowercase"}}
    for left, right in [(True, False), (False, True), (True, True)]:
        yield f"strip-{left}-{right}", {
            "normalizer": {"type": "Strip", "strip_left": left, "strip_right": right}, "raw_added": True}
    yield "replace", {"normalizer": {"type": "Sequence", "normalizers": [
        {"type": "Replace", "pattern": {"Regex": r"\d{2,}|[\p{Lu}]"}, "content": "#"},
        {"type": "Replace", "pattern": {"String": "e"}, "content": "3"}]}}
    yield "prepend", {"normalizer": {"type": "Prepend", "prepend": "_"}, "raw_added": True}
    yield "template", {"post_processor": {"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
                                                  {"Sequence": {"id": "A", "type_id": 0}},
                                                  {"SpecialToken": {"id": "<|padding|>", "type_id": 0}}],
         "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
         "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]},
                            "<|padding|>": {"id": "<|padding|>", "ids": [1], "tokens": ["<|padding|>"]}}}]}}
    for scheme in ["always", "first", "never"]:
        space = {"type": "Metaspace", "replacement": "\u0120", "prepend_scheme": scheme, "split": scheme != "first"}
        yield f"metaspace-{scheme}", {"pre_tokenizer": space, "decoder": space}
    yield "no-decoder", {"decoder": None}
    yield "fallback", {"pre_tokenizer": None, "normalizer": None, "byte_fallback": True, "decoder": {
        "type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u0120"}, "content": " "},
                                         {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}}
    for i, flags in enumerate([{"lstrip": True}, {"rstrip": True}, {"single_word": True}, {"lstrip": True, "rstrip": True}]):
        yield f"added-{i}", {"added": flags}
    for fuse in [False, True]:
        yield f"unknown-{fuse}", {"unk_token": "<|padding|>", "fuse_unk": fuse, "pre_tokenizer": None}
    yield "ignore-merges", {"ignore_merges": True}


def write_variant(base, changes, path):
    with open(base, encoding="utf-8") as f:
        j = json.load(f)
    for key, value in changes.items():
        if key in ("byte_fallback", "unk_token", "fuse_unk", "ignore_merges"):
            j["model"][key] = value
        elif key == "raw_added":  # else the package would look for, and print, the normal form of these tokens
            for t in j["added_tokens"]:
                t["normalized"] = False
        elif key == "added":
            free = max(t["id"] for t in j["added_tokens"]) + 1
            for i, content in enumerate(["don't", "caf\u00e9", "<|endoftext", "  \n"]):
                j["added_tokens"].append({"id": free + i, "content": content, "single_word": False, "lstrip": False,
                                          "rstrip": False, "normalized": i < 2, "special": i == 2, **value})
        else:
            j[key] = value
    with open(path, "w", encoding="utf-8") as f:
        json.dump(j, f)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("krait")
    parser.add_argument("tokenizers", nargs="+")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bytes", type=int, default=1 << 20)
    parser.add_argument("--variants", action="store_true")
    parser.add_argument("--only", default="", help="variants whose name contains this")
    a = parser.parse_args()
    text, raw = mixed_text(a.seed, a.bytes), broken_bytes(a.seed + 1, a.bytes // 4)
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        krait = Krait(a.krait, folder)
        for path in a.tokenizers:
            bad += compare(krait, path, text, raw, a.seed, 20)
        if a.variants:
            for name, changes in variants():
                if a.only not in name:
                    continue
                path = os.path.join(folder, name + ".json")
                write_variant(a.tokenizers[0], changes, path)
                bad += compare(krait, path, text[:len(text) // 4], raw[:len(raw) // 4], a.seed, 2)
    print(f"{bad} differences (seed {a.seed})")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
