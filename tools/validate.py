#!/usr/bin/env python3
"""Measures the figures of docs/validation.md on this machine and prints them as Markdown.

usage: tools/validate.py [--shared ../shared] [--only SECTION,...]     after ./dev build; sections: see SECTIONS below.
"""
import argparse
import itertools
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
KRAIT = ROOT / "build" / "krait"
SHIPPED = ROOT / "models" / "mamba3-books-12m" / "mamba3-books-12m-Q8_0.gguf"
BOOKS = ["mamba1-books-12m", "mamba2-books-12m", "mamba3-books-12m"]
TINY = ["mamba", "mamba-bias-k3-d8", "mamba-d20", "mamba2", "mamba2-g4", "mamba2-limit", "mamba3_siso", "mamba3_siso_norm",
        "mamba3_mimo", "mamba3_mimo_norm", "falcon_mamba", "falcon_mamba-k3"]
LOSSES = {"mamba1-books-12m": (3.82948, 3.71817), "mamba2-books-12m": (3.48201, 3.41960), "mamba3-books-12m": (3.38975, 3.34155)}
PROMPT = "It was a dark and stormy night;"


def run(*args, **kwargs):
    return subprocess.run([str(a) for a in args], capture_output=True, text=True, check=True, **kwargs).stdout


def krait_json(*args):
    return json.loads(run(KRAIT, *args, "--json"))


def peak_rss_mib(*args):
    """Peak resident memory of one process, MiB, and its seconds."""
    start = time.time()
    child = subprocess.Popen([str(a) for a in args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        raise RuntimeError(f"{args}: status {status}")
    return usage.ru_maxrss / 1024, time.time() - start


def test_lines(program, pattern, filter_="*"):
    out = subprocess.run([ROOT / "build" / "tests" / program, f"--gtest_filter={filter_}"], capture_output=True, text=True)
    lines = [line for line in out.stdout.splitlines() if re.search(pattern, line)]
    return lines + [f"(exit code {out.returncode})"]


def section_parity(shared):
    print("\n## Models against float64 references: `build/tests/test_parity`\n```")
    print("\n".join(test_lines("test_parity", r"relative RMS|SKIPPED")), "```", sep="\n")


def section_goldens(shared):
    print("\n## Kernels against captured activations: `build/tests/test_goldens*`\n```")
    for program in sorted((ROOT / "build" / "tests").glob("test_goldens*")):
        if os.access(program, os.X_OK) and program.is_file():
            print("\n".join(test_lines(program.name, r"RMS|final states|SKIPPED")))
    print("```")


def section_loss(shared):
    print("\n## Loss of held-out books: `krait perplexity MODEL BOOKS… --window 1024 --json`")
    print("| model | books-valid | reference | difference | books-test | reference | difference |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        books = {}
        for part in ("valid", "test"):
            with tarfile.open(shared / "data" / "corpora" / f"books-{part}.tar.xz") as tar:
                tar.extractall(f"{folder}/{part}")
            books[part] = sorted(pathlib.Path(folder, part).rglob("*.txt"))
        for model in BOOKS:
            row = [model]
            for part, want in zip(("valid", "test"), LOSSES[model]):
                got = krait_json("perplexity", shared / "data" / "models" / model, *books[part], "--window", "1024")["loss"]
                row += [f"{got:.5f}", f"{want:.5f}", f"{got - want:+.5f}"]
            print("| " + " | ".join(row) + " |", flush=True)


def section_verify(shared):
    print("\n## Exactness: `krait verify MODEL` (weights f32, bf16, f16)")
    models = [shared / "data" / "tiny" / t for t in TINY] + [shared / "data" / "models" / b for b in BOOKS]
    for model in models:
        start = time.time()
        done = subprocess.run([KRAIT, "verify", str(model), "--json"], capture_output=True, text=True)
        report = json.loads(done.stdout) if done.stdout else {"cases": 0, "different": 0}
        print(f"- {model.name}: {report['cases'] - report['different']} of {report['cases']} cases bit-equal, exit code "
              f"{done.returncode}, {time.time() - start:.1f} s", flush=True)


def section_matmul(shared):
    print("\n## Matmul against the roofline: `./dev bench` (`build/bench/matmul_bench`)\n```")
    print(run(ROOT / "build" / "bench" / "matmul_bench").rstrip(), "```", sep="\n")


def section_memory(shared):
    print("\n## Memory: `krait perplexity MODEL FILE`, one pass with carried state, peak resident MiB")
    print("| model | 10,000 tokens | 1,000,000 tokens | difference |\n|---|---|---|---|")
    text = (shared / "data" / "corpora" / "tinyshakespeare.txt").read_text()
    with tempfile.TemporaryDirectory() as folder:
        for model in BOOKS:
            path = shared / "data" / "models" / model
            peaks = []
            for tokens in (10_000, 1_000_000):
                # Ids come through a file so that the text of the longer run is not what is measured.
                file = pathlib.Path(folder, f"{tokens}.txt")
                per_token = len(text) / len(run(KRAIT, "tokenize", path, "-p", text[:100_000]).split()) * 100_000 / len(text)
                want = int(tokens * per_token * 1.02)
                file.write_text((text * (want // len(text) + 1))[:want])
                peaks.append(peak_rss_mib(KRAIT, "perplexity", path, file)[0])
            print(f"| {model} | {peaks[0]:.1f} | {peaks[1]:.1f} | {peaks[1] - peaks[0]:+.1f} |", flush=True)


def section_start(shared):
    print("\n## Start: process start to first token of the shipped model, `krait run -p … -n 1`")
    times = []
    for _ in range(21):
        start = time.time()
        child = subprocess.Popen([KRAIT, "run", "-p", PROMPT, "-n", "1", "--no-display-prompt"], stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL)
        child.stdout.read(1)
        times.append(time.time() - start)
        child.stdout.read()
        child.wait()
    print(f"median {1000 * statistics.median(times):.0f} ms, worst of {len(times)}: {1000 * max(times):.0f} ms")


def section_contention(shared):
    print("\n## Half of the machine taken by other processes: `krait bench MODEL -p 512 -n 128`, interleaved")
    print("| test | quiet tok/s | contended tok/s | share |\n|---|---|---|---|")
    model = SHIPPED
    quiet, busy = {}, {}
    for _ in range(3):
        for load, best in ((False, quiet), (True, busy)):
            n = max(1, (os.cpu_count() or 2) // 2) if load else 0
            burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
            try:
                for row in krait_json("bench", model, "-p", "512", "-n", "128", "-r", "2")["rows"]:
                    best[row["test"]] = max(best.get(row["test"], 0), row["tokens_per_second"])
            finally:
                for b in burners:
                    b.kill()
                    b.wait()
    for test, value in quiet.items():
        print(f"| {test} | {value:.0f} | {busy[test]:.0f} | {100 * busy[test] / value:.0f} % |")


def section_length(shared):
    print("\n## Cost against length, shipped model: `krait bench -p 2048 -n 128 -d 100,100000,1000000`")
    rows = {r["test"]: r["tokens_per_second"] for r in
            krait_json("bench", SHIPPED, "-p", "2048", "-n", "128", "-d", "100,100000,1000000",
                       "-r", "5")["rows"]}
    print("| what | after 100 tokens | after 100,000 | after 1,000,000 |\n|---|---|---|---|")
    for name, test in (("prefill of 2048, tok/s", "pp2048"), ("decode, tok/s", "tg128")):
        print(f"| {name} | " + " | ".join(f"{rows[f'{test}@d{d}']:.0f}" for d in (100, 100_000, 1_000_000)) + " |")


def section_big(shared):
    """A model of 1.4 billion parameters: needs 4 GB of disk and of memory."""
    print("\n## mamba-1.4b: resident memory and first token, `krait run MODEL -p … -n 1`")
    print("| weights | file MB | state MB | peak resident MB | of file + state | first token s | 8 tokens of prefill s | "
          "file read once s | first token, of both |\n|---|---|---|---|---|---|---|---|---|")
    tokenizer = SHIPPED
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "bf16")
        run(KRAIT, "new", "mamba-1.4b", source, "--dtype", "bf16")
        quantized = pathlib.Path(folder, "q4_k_m.gguf")
        run(KRAIT, "quantize", source, quantized, "--type", "Q4_K_M")
        for model, file in ((source, source / "model.safetensors"), (quantized, quantized)):
            bench = krait_json("bench", model, "-p", "8", "-n", "0", "-r", "5", "--no-roofline")
            steady = 8 / bench["rows"][0]["tokens_per_second"]
            command = [KRAIT, "run", model, "--tokenizer", tokenizer, "-p", PROMPT[:-1], "-n", "1"]  # 8 tokens
            first = min(peak_rss_mib(*command)[1] for _ in range(5))
            peak = peak_rss_mib(*command)[0] * 1.048576
            size, state = file.stat().st_size / 1e6, bench["state_bytes"] / 1e6
            start = time.time()
            with open(file, "rb", buffering=0) as f:
                while f.read(1 << 24):
                    pass
            read = time.time() - start
            print(f"| {model.name} | {size:.0f} | {state:.1f} | {peak:.0f} | {peak / (size + state):.2f} | {first:.2f} | "
                  f"{steady:.2f} | {read:.2f} | {first / (steady + read):.2f} |", flush=True)


def section_quality(shared):
    print("\n## Quantized models: `krait quantize MODEL OUT --type T --eval TEXT --report R.json`, nothing calibrated")
    print("| model | type | MB | text | mean KL | perplexity | same best token | KL after 1k, 10k, 100k tokens | state after them |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(shared / "data" / "corpora" / "books-valid.tar.xz") as tar:
            tar.extractall(folder)
        books = pathlib.Path(folder, "books.txt")
        books.write_text("\n\n".join(b.read_text() for b in sorted(pathlib.Path(folder).rglob("*.txt"))))
        texts = {"books": books, "wikitext-2": shared / "data" / "corpora" / "wikitext-2-test.txt"}
        for model, kind, (name, text) in itertools.product(BOOKS, ("Q8_0", "Q4_K_M"), texts.items()):
            report = pathlib.Path(folder, "report.json")
            drift = 100_000 if name == "books" else 0
            run(KRAIT, "quantize", shared / "data" / "models" / model, pathlib.Path(folder, "out.gguf"), "--force", "--type", kind,
                "--eval", text, "--eval-tokens", "65536", "--drift", str(drift), "--report", report)
            r = json.loads(report.read_text())
            e, points = r["evaluation"], [p for p in r["drift"] if p["tokens"] in (1000, 10_000, 100_000)]
            print(f"| {model} | {kind} | {r['bytes'] / 1e6:.2f} | {name} | {e['mean_kl']:.2e} | {100 * e['perplexity_change']:+.3f} % | "
                  f"{100 * e['same_top']:.2f} % | {', '.join(format(p['mean_kl'], '.1e') for p in points)} | "
                  f"{', '.join(format(p['state_relative_rms'], '.3f') for p in points)} |", flush=True)


SECTIONS = ["parity", "goldens", "loss", "verify", "matmul", "memory", "start", "contention", "length", "big", "quality"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path, default=ROOT.parent / "shared")
    parser.add_argument("--only", default=",".join(SECTIONS))
    args = parser.parse_args()
    for name in args.only.split(","):
        if name not in SECTIONS:
            sys.exit(f"validate: there is no section '{name}'; sections: {', '.join(SECTIONS)}")
    print(run(KRAIT, "bench", "roofline").rstrip())
    for name in args.only.split(","):
        if name not in ("start", "contention", "matmul", "length", "big") and not args.shared.exists():
            print(f"\n(section {name} skipped: {args.shared} is absent)")
            continue
        globals()[f"section_{name}"](args.shared)


if __name__ == "__main__":
    main()
