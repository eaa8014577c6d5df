#!/usr/bin/env python3
"""Compares `krait tokenizer train` and `krait tokenize` with the tokenizers package (pip install tokenizers).
usage: compare_bpe_trainer.py KRAIT VOCAB_SIZE TEXT_FILES…       each file is one text, for both"""
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers


def merges_of(tokenizer_json):
    merges = json.loads(tokenizer_json)["model"]["merges"]
    return [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in merges]


def theirs(files, vocab_size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=2, special_tokens=["<|endoftext|>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    start = time.time()
    tokenizer.train_from_iterator((pathlib.Path(f).read_text() for f in files), trainer)
    return tokenizer.to_str(), time.time() - start


def main():
    krait, vocab_size, files = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    with tempfile.TemporaryDirectory() as folder:
        out = folder + "/tokenizer.json"
        start = time.time()
        subprocess.run([krait, "tokenizer", "train", *files, "--vocab-size", str(vocab_size), "--out", out], check=True)
        our_seconds = time.time() - start
        ours = Tokenizer.from_file(out)
        differ = 0
        for f in files[:: max(1, len(files) // 20)]:
            text = pathlib.Path(f).read_text()
            command = [krait, "tokenize", out, "-f", f, "--json"]
            ids = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["ids"]
            differ += ids != ours.encode(text).ids
        mine = merges_of(pathlib.Path(out).read_text())
    their_json, their_seconds = theirs(files, vocab_size)
    others = merges_of(their_json)
    same = next((i for i, (a, b) in enumerate(zip(mine, others)) if a != b), min(len(mine), len(others)))
    print(f"files encoded otherwise by the package: {differ}")
    print(f"merges: {len(mine)} and {len(others)}, the first {same} are the same, {len(set(mine) & set(others))} in both")
    if same < len(mine):
        print(f"first difference: {mine[same]} and {others[same]}")
    print(f"seconds: {our_seconds:.1f} and {their_seconds:.1f}")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
