#!/usr/bin/env python3
"""Compares GGUF files of block types with llama.cpp, both ways: files written here run there, files written there run here.

usage: compare_gguf.py KRAIT [MODEL...] [--types F16,Q8_0,Q4_K_M] [--text FILE] [--bar 1e-3] [--ids 64]

MODEL: a checkpoint, or a shape that `krait new` knows (default: mamba-130m mamba2-130m, random weights). Runs in a Python
that has numpy, gguf and llama-cpp-python; what is missing is named and skipped. For every file: the mean KL divergence of
llama.cpp's distributions from Krait's over the first ids of the text, random ones without it (the bar is for this one), and
of each from Krait's in f32, for scale; and whether the gguf package reads every tensor to the bits that Krait reads. Exit code 0: all below the bar.
"""
import argparse
import json
import pathlib
import re
import sys
import tempfile

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "bench"))
from compare_engines import Failure, LlamaPython, run  # noqa: E402

try:
    import gguf
    import numpy as np
except ImportError as missing:
    print(f"SKIPPED: {missing}; needs a Python with numpy, gguf and llama-cpp-python")
    sys.exit(0)


def log_softmax(rows):
    rows = rows.astype(np.float64)
    rows = rows - rows.max(axis=1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))


def divergence(p, q):
    """Mean over rows of KL(p, q), both log probabilities."""
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


class Compare:
    def __init__(self, arguments, folder):
        self.krait, self.folder, self.bar, self.failures = arguments.krait, folder, arguments.bar, 0
        self.text = arguments.text
        self.ids = np.random.default_rng(1).integers(0, 8000, arguments.ids).astype(np.int32)
        self.types = arguments.types.split(",")
        self.quantizes = re.search(r"^ +quantize ", run([self.krait, "--help"]), re.M) is not None
        try:
            self.llama = LlamaPython(sys.executable, 2, __file__)
        except Failure as e:
            self.llama = None
            print(f"SKIPPED: everything that needs llama.cpp: {str(e).splitlines()[0]}")

    def here(self, model):
        """Log probabilities after every id, by Krait."""
        np.save(self.folder / "ids.npy", self.ids)
        run([self.krait, "logits", model, "--ids", self.folder / "ids.npy", "--out", self.folder / "logits.npy"])
        return log_softmax(np.load(self.folder / "logits.npy"))

    def there(self, file):
        self.llama.load(file)
        return log_softmax(np.array(self.llama.ask(op="logits", ids=self.ids.tolist())["logits"]))

    def read_alike(self, file):
        """Whether the gguf package decodes each tensor of the file to the bits that Krait decodes it to."""
        widened = self.folder / "widened.gguf"
        run([self.krait, "convert", file, widened, "--dtype", "f32", "--force"])
        ours = {t.name: t for t in gguf.GGUFReader(widened).tensors}
        for t in gguf.GGUFReader(file).tensors:
            values = gguf.dequantize(t.data, t.tensor_type).astype(np.float32)
            if not np.array_equal(values.reshape(-1).view(np.uint32), ours[t.name].data.reshape(-1).view(np.uint32)):
                print(f"    {t.name} ({t.tensor_type.name}) is read differently by the gguf package")
                return False
        return True

    def file(self, writer, file, exact):
        here = self.here(file)
        alike = self.read_alike(file)
        line = f"  {file.stem.split('.')[-1]:8s} by {writer:9s}  to f32: here {divergence(exact, here):.2e}"
        good = alike
        if self.llama:
            there = self.there(file)
            apart = divergence(here, there)
            good = good and apart <= self.bar
            line += f", llama.cpp {divergence(exact, there):.2e}   here to llama.cpp {apart:.2e}"
        self.failures += not good
        print(line + ("   ok" if good else "   FAILED" if alike else "   FAILED (read differently)"), flush=True)

    def model(self, name):
        print(f"{name}:", flush=True)
        source = pathlib.Path(name)
        if not source.exists():
            source = self.folder / "new"
            run([self.krait, "new", name, source])
        if self.text:
            ids = json.loads(run([self.krait, "tokenize", source, "-f", self.text, "--json"]))["ids"]
            self.ids = np.array(ids[: len(self.ids)], np.int32)
        f32, f16 = self.folder / "model.F32.gguf", self.folder / "model.F16.gguf"
        run([self.krait, "convert", source, f32, "--dtype", "f32", "--force"])
        run([self.krait, "convert", source, f16, "--dtype", "f16", "--force"])
        exact = self.here(f32)
        for kind in self.types:
            self.one_type(kind, f32, f16, exact)

    def one_type(self, kind, f32, f16, exact):
        ours, theirs = self.folder / f"ours.{kind}.gguf", self.folder / f"theirs.{kind}.gguf"
        for old in (ours, theirs):
            old.unlink(missing_ok=True)
        if kind == "F16":
            self.file("krait", f16, exact)
        elif self.quantizes:
            run([self.krait, "quantize", f32, ours, "--type", kind])
            self.file("krait", ours, exact)
        else:
            print(f"  {kind:8s} by krait      SKIPPED: this build has no `krait quantize`")
        if not self.llama:
            return
        try:
            self.llama.quantize(f32, theirs, kind)
        except Failure as e:  # a row that its block does not divide, for example
            print(f"  {kind:8s} by llama.cpp  SKIPPED, its quantizer refuses: {' '.join(str(e).split())[-120:]}")
            return
        self.file("llama.cpp", theirs, exact)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("krait")
    parser.add_argument("models", nargs="*", default=["mamba-130m", "mamba2-130m"])
    parser.add_argument("--types", default="F16,Q8_0,Q4_K_M")
    parser.add_argument("--text", help="of a model with a tokenizer")
    parser.add_argument("--bar", type=float, default=1e-3)
    parser.add_argument("--ids", type=int, default=64)
    arguments = parser.parse_args()
    failures = 0
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            compare = Compare(arguments, pathlib.Path(folder))
            compare.model(name)
            failures += compare.failures
            if compare.llama:
                compare.llama.close()
    if failures:
        print(f"{failures} files FAILED")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
