#!/usr/bin/env python3
"""Quality of quantized files: krait's against llama.cpp's of the same model, on the same texts, in both programs.

usage: PYTHON bench/quality_llamacpp.py [--shared ../shared] [--models …] [--types Q8_0,Q4_K_M] [--windows 8]
PYTHON must have llama-cpp-python and numpy (python3 -m venv peer && peer/bin/pip install llama-cpp-python). Prints two
Markdown tables: how far each file is from the original (mean KL in nats a token, change of perplexity), and how far the
two programs are from each other on one file. Models that llama.cpp does not know are measured here alone.
"""
import argparse
import ctypes
import pathlib
import subprocess
import sys
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
KRAIT = ROOT / "build" / "krait"
MODELS = ["mamba1-books-12m", "mamba2-books-12m", "mamba3-books-12m"]
WINDOW = 1024
FILE_TYPES = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17,
              "Q6_K": 18, "IQ4_NL": 25}
F16 = 1

try:
    import llama_cpp as llama
    import numpy as np
except ImportError as missing:
    sys.exit(f"quality_llamacpp: skipped: {missing}; run it with a Python that has llama-cpp-python and numpy")

messages = []


@llama.llama_log_callback
def on_message(_level, text, _data):
    messages.append((text or b"").decode(errors="replace"))


def krait(*args):
    done = subprocess.run([str(KRAIT), *map(str, args)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"quality_llamacpp: krait {' '.join(map(str, args))}\n{done.stderr}")
    return done.stdout


def failed(what):
    sys.exit(f"quality_llamacpp: llama.cpp {what}: " + " ".join("".join(messages[-8:]).split())[-400:])


def peer_quantize(source, target, kind):
    """llama.cpp's own file. Its Q8_0 cannot hold rows that are no multiple of 32: those of ssm_dt get F16 (trap D1)."""
    p = llama.llama_model_quantize_default_params()
    p.ftype = FILE_TYPES[kind]
    overrides = (llama.llama_model_tensor_override * 2)()
    overrides[0].pattern, overrides[0].type = rb"ssm_dt\.weight", F16
    if "mamba1" in str(source) and not kind.endswith(("_M", "_S")):
        p.tt_overrides = ctypes.cast(overrides, type(p.tt_overrides))
    if llama.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(p)) != 0:
        failed(f"does not quantize {source} as {kind}")


def peer_logits(path, windows):
    """[window, position, id] f32; each window from an empty state."""
    model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
    if not model:
        failed(f"does not load {path}")
    p = llama.llama_context_default_params()
    p.n_ctx, p.n_batch, p.n_ubatch = WINDOW, WINDOW, 512
    context = llama.llama_init_from_model(model, p)
    batch = llama.llama_batch_init(WINDOW, 0, 1)
    width = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    out = np.empty((*windows.shape, width), np.float32)
    for w, ids in enumerate(windows):
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = int(token), i, 1, True
            batch.seq_id[i][0] = 0
        if llama.llama_decode(context, batch) != 0:
            failed("does not decode")
        for i in range(len(ids)):
            out[w, i] = np.ctypeslib.as_array(llama.llama_get_logits_ith(context, i), (width,))
    llama.llama_batch_free(batch)
    llama.llama_free(context)
    llama.llama_model_free(model)
    return out


def krait_logits(path, windows, folder):
    np.save(folder / "ids.npy", windows.astype(np.int32))
    krait("logits", path, "--ids", folder / "ids.npy", "--out", folder / "logits.npy")
    return np.load(folder / "logits.npy")


def log_softmax(x):
    x = x.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def mean_kl(p, q):
    total = 0.0
    for a, b in zip(p, q):  # window by window: the arrays are large
        a, b = log_softmax(a), log_softmax(b)
        total += (np.exp(a) * (a - b)).sum()
    return total / (p.shape[0] * p.shape[1])


def perplexity(logits, windows):
    total = 0.0
    for a, ids in zip(logits, windows):
        a = log_softmax(a)[:-1]
        total -= a[np.arange(len(a)), ids[1:]].sum()
    return float(np.exp(total / (windows.shape[0] * (windows.shape[1] - 1))))


def read_texts(shared, model, n):
    """{name: ids [n, WINDOW]}: windows spread evenly over each text."""
    corpora = shared / "data" / "corpora"
    with tarfile.open(corpora / "books-valid.tar.xz") as tar:
        members = sorted((m for m in tar.getmembers() if m.name.endswith(".txt")), key=lambda m: m.name)
        books = "\n\n".join(tar.extractfile(m).read().decode() for m in members)
    out = {}
    for name, text in (("books", books), ("wikitext-2", (corpora / "wikitext-2-test.txt").read_text())):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(text)
            file.flush()
            ids = np.array(krait("tokenize", model, "-f", file.name).split(), np.int64)
        firsts = np.linspace(0, len(ids) - WINDOW, n).astype(int)
        out[name] = np.stack([ids[f:f + WINDOW] for f in firsts])
    return out


def calibration_text(shared, folder):
    """Books that neither training's held-out sets nor the evaluation use: the beginning of the test set."""
    path = folder / "calibration.txt"
    if not path.exists():
        with tarfile.open(shared / "data" / "corpora" / "books-test.tar.xz") as tar:
            member = min((m for m in tar.getmembers() if m.name.endswith(".txt")), key=lambda m: m.name)
            path.write_bytes(tar.extractfile(member).read())
    return path


class Table:
    def __init__(self, *columns):
        print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns), flush=True)

    def row(self, *cells):
        print("| " + " | ".join(cells) + " |", flush=True)


def measure_model(a, name, folder):
    source = a.shared / "data" / "models" / name
    texts = read_texts(a.shared, source, a.windows)
    peer = "mamba3" not in name
    original = folder / f"{name}-f32.gguf"
    krait("convert", source, original, "--dtype", "f32")
    files = {}  # (type, maker) -> path
    for kind in a.types:
        files[kind, "krait"] = folder / f"{name}-{kind}.gguf"
        krait("quantize", source, files[kind, "krait"], "--type", kind, *a.quantize)
        if a.calibrate:
            files[kind, "krait, calibrated"] = folder / f"{name}-{kind}-calibrated.gguf"
            krait("quantize", source, files[kind, "krait, calibrated"], "--type", kind, *a.quantize, "--calibrate",
                  calibration_text(a.shared, folder))
        if peer:
            files[kind, "llama.cpp"] = folder / f"{name}-{kind}-peer.gguf"
            peer_quantize(original, files[kind, "llama.cpp"], kind)
    engines = {"krait": lambda path, ids: krait_logits(path, ids, folder)}
    if peer:
        engines["llama.cpp"] = peer_logits
    rows, between = [], []
    for text, ids in texts.items():
        base = {engine: run(original, ids) for engine, run in engines.items()}
        if peer:
            between.append((name, "F32", "krait", text, mean_kl(base["krait"], base["llama.cpp"])))
        for (kind, maker), path in files.items():
            logits = {engine: run(path, ids) for engine, run in engines.items()}
            for engine, got in logits.items():
                change = perplexity(got, ids) / perplexity(base[engine], ids) - 1
                rows.append((name, kind, maker, path.stat().st_size, text, engine, mean_kl(base[engine], got), change))
            if peer:
                between.append((name, kind, maker, text, mean_kl(logits["krait"], logits["llama.cpp"])))
    return rows, between


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path, default=ROOT.parent / "shared")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--types", default="Q8_0,Q4_K_M")
    parser.add_argument("--windows", type=int, default=8, help=f"of {WINDOW} tokens, for each text")
    parser.add_argument("--calibrate", action="store_true", help="also files calibrated on a held-out book")
    parser.add_argument("--quantize", default="", help="further options of krait quantize")
    a = parser.parse_args()
    a.types, a.quantize = a.types.split(","), a.quantize.split()
    if not (a.shared / "data" / "models").exists():
        sys.exit(f"quality_llamacpp: skipped: {a.shared} is absent")
    llama.llama_log_set(on_message, None)
    llama.llama_backend_init()
    between = []
    print(f"Distance from the original, {a.windows} windows of {WINDOW} tokens a text; each program against itself\n")
    table = Table("model", "type", "file by", "MB", "text", "run in", "mean KL", "perplexity")
    for name in a.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            rows, pairs = measure_model(a, name, pathlib.Path(folder))
        between += pairs
        for name_, kind, maker, size, text, engine, kl, change in rows:
            table.row(name_, kind, maker, f"{size / 1e6:.2f}", text, engine, f"{kl:.3e}", f"{100 * change:+.3f} %")
    print("\nOne file in both programs: mean KL of krait's logits to llama.cpp's\n")
    table = Table("model", "type", "file by", "text", "mean KL")
    for name, kind, maker, text, kl in between:
        table.row(name, kind, maker, text, f"{kl:.3e}")


if __name__ == "__main__":
    main()
