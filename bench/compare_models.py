"""The files that compare_llamacpp.py measures: random weights of published shapes, both engines run the same file."""
import json
import math
import os
import pathlib
import random
import shutil
import struct

from compare_engines import Failure, run

PLAIN = {"BF16": "bf16", "F16": "f16", "F32": "f32"}


class Models:
    def __init__(self, cache, krait, peer, quantizer):
        self.cache, self.krait, self.peer, self.quantizer = pathlib.Path(cache), krait, peer, quantizer
        if quantizer == "auto":
            self.quantizer = "krait" if krait.quantizes else "llama.cpp"
        if self.quantizer == "krait" and not krait.quantizes:
            raise Failure(f"{krait.program} has no verb 'quantize'; --quantizer llama.cpp")
        self.peers = {}
        self.cache.mkdir(parents=True, exist_ok=True)

    def made_by(self, kind):
        return "krait convert" if kind in PLAIN else "krait quantize" if self.quantizer == "krait" else "llama.cpp's quantizer"

    def has_peer(self, model):
        """llama.cpp knows no Mamba-3, whatever the file is called."""
        if model not in self.peers:
            said = json.loads(run([self.krait.program, "inspect", self.base(model), "--json"]))
            self.peers[model] = not said["architecture"].startswith("mamba3")
        return self.peers[model]

    def name(self, model):
        """`model`: a preset's name or the path of a checkpoint."""
        return pathlib.Path(model).name.removesuffix(".gguf")

    def base(self, model):
        """BF16, from which the others are made."""
        source, out = pathlib.Path(model), self.cache / f"{self.name(model)}-BF16.gguf"
        if out.exists():
            return out
        if source.exists():
            run([self.krait.program, "convert", source, out, "--dtype", "bf16"])
            return out
        folder = self.cache / f"{model}.folder"
        shutil.rmtree(folder, ignore_errors=True)
        run([self.krait.program, "new", model, folder, "--dtype", "bf16"])
        run([self.krait.program, "convert", folder, out])
        shutil.rmtree(folder)
        return out

    def file(self, model, kind):
        base = self.base(model)
        if kind == "BF16":
            return base
        if kind in PLAIN:
            out = self.cache / f"{self.name(model)}-{kind}.gguf"
            if not out.exists():
                run([self.krait.program, "convert", base, out, "--dtype", PLAIN[kind]])
            return out
        out = self.cache / f"{self.name(model)}-{kind}.{self.quantizer}.gguf"
        if out.exists() and (self.quantizer != "krait" or out.stat().st_mtime > self.krait.program.stat().st_mtime):
            return out  # what an older program quantized is made anew
        partial = self.cache / f"partial-{out.name}"
        if self.quantizer == "krait":
            run([self.krait.program, "quantize", base, partial, "--type", kind])
        elif self.has_peer(model):
            self.peer.quantize(base, partial, kind)
        else:
            raise Failure(f"llama.cpp's quantizer does not know {model}, and krait has no verb 'quantize'")
        os.replace(partial, out)
        return out

    def forget(self, model):
        for file in self.cache.glob(f"{self.name(model)}-*.gguf"):
            file.unlink()


def write_ids(path, ids):
    header = f"{{'descr': '<i4', 'fortran_order': False, 'shape': ({len(ids)},), }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() +
                     struct.pack(f"<{len(ids)}i", *ids))


def read_rows(path, rows):
    data = path.read_bytes()
    start = 10 + struct.unpack_from("<H", data, 8)[0]
    width = (len(data) - start) // 4 // rows
    return [struct.unpack_from(f"<{width}f", data, start + 4 * width * i) for i in range(rows)]


def log_softmax(row):
    top = max(row)
    total = top + math.log(math.fsum(math.exp(v - top) for v in row))
    return [v - total for v in row]


def divergence(krait, peer, file, length=16):
    """Mean KL of llama.cpp's distributions from Krait's after random ids: whether both compute the same model."""
    scratch = [file.with_suffix(s) for s in (".ids.npy", ".logits.npy")]
    rng = random.Random(5)
    vocab = json.loads(run([krait.program, "inspect", file, "--json"]))["vocab_size"]
    ids = [rng.randrange(vocab) for _ in range(length)]
    try:
        write_ids(scratch[0], ids)
        krait.logits(file, *scratch)
        ours = read_rows(scratch[1], length)
    finally:
        for s in scratch:
            s.unlink(missing_ok=True)
    theirs = peer.ask(op="logits", ids=ids)["logits"]
    total = 0.0
    for a, b in zip(ours, theirs):
        if len(a) != len(b):
            raise Failure(f"{len(a)} logits here, {len(b)} in llama.cpp")
        a, b = log_softmax(a), log_softmax(b)
        total += math.fsum(math.exp(x) * (x - y) for x, y in zip(a, b))
    return total / length
