#!/usr/bin/env python3
"""Writes the small files of tests/fixtures that no other program is needed for: one valid file a format, as NumPy,
torch.save, zipfile, safetensors and `krait run --save-state` lay them out. Tests read them, fuzzers begin with them.

usage: make_fixtures.py [FOLDER]        default: tests/fixtures; needs libxxhash.so.0, which the build needs too
"""
import collections
import ctypes
import io
import json
import pathlib
import pickle
import struct
import sys
import types
import zipfile

DATE = (2024, 1, 1, 0, 0, 0)  # of every member of an archive, so that the files are the same each time


def floats(*values):
    return struct.pack(f"<{len(values)}f", *values)


def npy(descr, shape, data, fortran=False):
    header = repr({"descr": descr, "fortran_order": fortran, "shape": shape})
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


def archive(members, method=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, content in members.items():
            z.writestr(zipfile.ZipInfo(name, DATE), content, compress_type=method)
    return out.getvalue()


def safetensors(tensors):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


class Storage:  # stands for a torch storage: the pickle holds only where it is
    def __init__(self, kind, key, size):
        self.description = ("storage", kind, key, "cpu", size)


class Pickler(pickle._Pickler):  # the C one does not take globals of modules that are not there
    def persistent_id(self, obj):
        return obj.description if isinstance(obj, Storage) else None


class Reduced:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def torch_globals():
    utils, torch = types.ModuleType("torch._utils"), types.ModuleType("torch")

    def define(module, name, base=()):
        thing = type(name, base, {}) if module is torch else (lambda *a: a)
        thing.__module__, thing.__qualname__, thing.__name__ = module.__name__, name, name
        setattr(module, name, thing)
        return thing

    sys.modules.update({"torch": torch, "torch._utils": utils})
    return (define(utils, "_rebuild_tensor_v2"), define(utils, "_rebuild_parameter"), define(torch, "FloatStorage"),
            define(torch, "HalfStorage"))


def torch_file(method=zipfile.ZIP_STORED):
    tensor, parameter, f32, f16 = torch_globals()
    hooks = collections.OrderedDict()
    # A transposed view, a parameter, and a view that begins inside a storage of another type.
    weights = collections.OrderedDict(
        a=Reduced(tensor, Storage(f32, "0", 6), 0, (2, 3), (1, 2), False, hooks),
        b=Reduced(parameter, Reduced(tensor, Storage(f32, "0", 6), 2, (2, 2), (2, 1), True, hooks), True, hooks),
        c=Reduced(tensor, Storage(f16, "1", 3), 1, (2,), (1,), False, hooks))
    out = io.BytesIO()
    Pickler(out, protocol=2).dump({"state_dict": weights, "step": 7})
    return archive({"m/data.pkl": out.getvalue(), "m/byteorder": "little", "m/data/0": floats(*range(6)),
                    "m/data/1": struct.pack("<3e", 1, 2, 3), "m/version": "3\n"}, method)


def state_file():
    """docs/formats.md, "State files": one block with two tensors, after the tokens 3 3 5."""
    def text(s):
        return struct.pack("<I", len(s)) + s.encode()

    tensors = [("conv", (2, 3), floats(*range(6))), ("ssm", (2, 2), floats(1, 0.5, 0.25, -1))]
    out = struct.pack("<QqQQQQ", 0x1234, 3, 99, 42, 0, 2) + text("mamba2")
    out += struct.pack("<II", 1, len(tensors))
    for name, shape, _ in tensors:
        out += text(name) + struct.pack(f"<BB{len(shape)}q", 0, len(shape), *shape)
    out += struct.pack("<I3i", 3, 3, 3, 5) + struct.pack("<Iiqiq", 2, 3, 2, 5, 1)
    out += struct.pack("<q", 4)  # logits
    for content in [t[2] for t in tensors] + [floats(0, 1, 2, 3)]:
        out += b"\0" * (-(len(out) + 24) % 64) + content
    whole = b"KRAITST\n" + struct.pack("<IIQ", 1, 0, 24 + len(out) + 8) + out
    return whole + struct.pack("<Q", xxh3(whole))


def xxh3(data):
    function = ctypes.CDLL("libxxhash.so.0").XXH3_64bits
    function.restype, function.argtypes = ctypes.c_uint64, [ctypes.c_char_p, ctypes.c_size_t]
    return function(data, len(data))


def token_shard():
    """Two documents, 1 2 3 and 300 5, of which 2 and 5 are not to be learned (docs/formats.md)."""
    def aligned(part):
        return part + b"\0" * (-len(part) % 64)
    payload = aligned(struct.pack("<3Q", 0, 3, 5)) + aligned(struct.pack("<5H", 1, 2, 3, 300, 5)) + b"\x0d"
    header = b"KRAITTK\n" + struct.pack("<II6Q", 1, 16, 5, 2, 301, 0x1234, 1, xxh3(payload)) + bytes(56)
    return header + struct.pack("<Q", xxh3(header)) + payload


def unigram_json():
    """A tokenizer.json with what byte_bpe.json lacks: unigram, normalizers, Metaspace, a template, byte fallback."""
    pieces = [["<unk>", 0.0], ["\u2581", -2.0], ["a", -3.0], ["b", -3.5], ["\u2581a", -2.5], ["ab", -4.0],
              ["caf\u00e9", -6.0]] + [[f"<0x{b:02X}>", -9.0] for b in (0x0A, 0xC3, 0xA9, 0xE2)]
    space = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True}
    added = {"id": len(pieces), "content": "<s>", "single_word": False, "lstrip": True, "rstrip": False,
             "normalized": False, "special": True}
    bos = {"id": "<s>", "type_id": 0}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [added],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
        "pre_tokenizer": space,
        "post_processor": {
            "type": "TemplateProcessing", "single": [{"SpecialToken": bos}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [len(pieces)], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, space]},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": True}}


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "fixtures")
    matrix = npy("<f4", (2, 3), floats(*range(6)))
    column = npy("<i8", (2, 2), struct.pack("<4q", 1, 3, 2, 4), fortran=True)
    files = {
        "matrix.npy": matrix,
        "column_major.npy": column,
        "arrays.npz": archive({"m.npy": matrix, "c.npy": column}, zipfile.ZIP_DEFLATED),
        "stored.zip": archive({"a.txt": "stored", "folder/": "", "folder/b": b"\0" * 40}),
        "two_tensors.safetensors": safetensors({"a": ("F32", [2, 3], floats(*range(6))),
                                                "b": ("BF16", [4], struct.pack("<4H", 0x3F80, 0, 0xBF80, 0x4000))}),
        "model.safetensors.index.json":
            json.dumps({"metadata": {"total_size": 32},
                        "weight_map": {"a": "two_tensors.safetensors", "b": "two_tensors.safetensors"}}).encode(),
        "three_tensors.pt": torch_file(),
        "conversation.state": state_file(),
        "tokens.ktok": token_shard(),
        "unigram.json": json.dumps(unigram_json(), ensure_ascii=False, separators=(",", ":")).encode(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
        print(f"{len(content):6} {folder / name}")


if __name__ == "__main__":
    main()
