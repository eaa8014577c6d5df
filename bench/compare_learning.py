#!/usr/bin/env python3
"""Learning beside PyTorch: one recipe, the same first weights, samples and order, in Krait and in PyTorch.

  PYTHON bench/compare_learning.py RECIPE [--krait build/krait] [--steps 300] [--work compare] [--threads 2]
         [--part krait|torch|both] [--device cpu|cuda] [--micro-batch N] [--reference mamba3.py] [--runs N]

RECIPE: a Mamba-2 (recipes/shakespeare.toml), beside that of transformers, or a Mamba-3, beside the definition in
--reference; on shards with validation, as the recipe says. PYTHON needs torch and transformers. Both take the samples in
the order of the text. Prints every 25th step's losses of both and the validation losses after the last step; the bar is a
difference of 0.5 % there. The parts may run one after the other, on two machines that share WORK and the shards.
With --runs the whole is done N times, run r with eps = (1 + r / 10)e-8 in both optimisers: a difference that means
nothing but rounding, and so shows how far the ends are told apart by that alone.
"""
import argparse
import importlib.util
import json
import math
import statistics
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import torch

UNDECAYED = ("A_log", ".D", "bias", "norm.weight", "norm2.weight", "norm_f.weight")  # ends of names


def krait_run(a, out, *settings):
    command = [a.krait, "train", a.recipe, "--out", str(out)]
    for s in ("data.shuffle=false", f"train.threads={a.threads}", *settings):
        command += ["--set", s]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"krait: {done.stderr}")


def shard_ids(folder):
    """All ids of a folder's shards (docs/formats.md, "Token shards")."""
    parts = []
    for path in sorted(Path(folder).glob("*.ktok")):
        raw = path.read_bytes()
        bits, tokens, documents = (int.from_bytes(raw[at:at + size], "little") for at, size in ((12, 4), (16, 8), (24, 8)))
        at = -(-(128 + 8 * (documents + 1)) // 64) * 64
        parts.append(np.frombuffer(raw, dtype=f"<u{bits // 8}", count=tokens, offset=at))
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))


class Windows:
    """Sample i: the i-th run of `length` tokens, and the tokens that follow each."""

    def __init__(self, ids, length, device):
        self.ids, self.length = ids.to(device), length
        self.count = (len(ids) - 1) // length

    def batch(self, first, n):
        rows = [self.ids[i * self.length:(i + 1) * self.length + 1] for i in range(first, first + n)]
        x = torch.stack(rows)
        return x[:, :-1], x[:, 1:]


def transformers_peer(folder, device):
    from transformers import Mamba2ForCausalLM

    model = Mamba2ForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device)
    return dict(model.named_parameters()), lambda x: model(x).logits


def reference_peer(folder, device, path):
    from safetensors.torch import load_file

    spec = importlib.util.spec_from_file_location("mamba3", path)
    mamba3 = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mamba3)
    weights = load_file(folder / "model.safetensors")
    weights.setdefault("lm_head.weight", weights["backbone.embedding.weight"])
    torch.save(weights, folder / "pytorch_model.bin")  # what the definition reads
    model = mamba3.Mamba3LM(str(folder), torch.float32)
    model.p = {name: p.to(device).requires_grad_() for name, p in model.p.items()}
    if json.loads((folder / "config.json").read_text()).get("tie_embeddings", True):
        model.p["lm_head.weight"] = model.p["backbone.embedding.weight"]
    torch.set_default_device(device)  # masks that it makes
    return {name: p for name, p in model.p.items() if name != "lm_head.weight"}, lambda x: model.logits(x)[0]


def loss_of(logits, x, y):
    return torch.nn.functional.cross_entropy(logits(x).flatten(0, 1), y.flatten())


def eps_of(run):
    return (1 + run / 10) * 1e-8


def torch_run(a, recipe, first, run):
    named, logits = reference_peer(first, a.device, a.reference) if a.reference else transformers_peer(first, a.device)
    plain = [p for n, p in named.items() if n.endswith(UNDECAYED)]
    decayed = [p for n, p in named.items() if not n.endswith(UNDECAYED)]
    peak, length = recipe["schedule"]["peak"], recipe["data"]["length"]
    batch = recipe["train"].get("batch") or recipe["train"]["batch_tokens"] // length
    micro = a.micro_batch or batch
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
                                  lr=peak, betas=(0.9, 0.95), eps=eps_of(run))
    warmup = round(recipe["schedule"].get("warmup", 0.1) * a.steps)
    train, valid = (Windows(shard_ids(recipe["data"][k]), length, a.device) for k in ("train", "valid"))
    losses = []
    for step in range(a.steps):
        for g in optimizer.param_groups:  # warm-up to the peak, then half a cosine to 0
            g["lr"] = peak * ((step + 1) / warmup if step < warmup else
                              0.5 * (1 + math.cos(math.pi * (step - warmup) / (a.steps - warmup))))
        optimizer.zero_grad()
        losses.append(0.0)
        for at in range(0, batch, micro):
            loss = loss_of(logits, *train.batch(step * batch + at, micro)) * (micro / batch)
            loss.backward()
            losses[-1] += loss.item()
        torch.nn.utils.clip_grad_norm_(list(named.values()), 1.0)
        optimizer.step()
        if (step + 1) % 25 == 0:
            print(f"PyTorch, run {run}, step {step + 1}: {losses[-1]:.5f}", flush=True)
    with torch.no_grad():
        held_out = [loss_of(logits, *valid.batch(i, 1)).item() for i in range(valid.count)]
    return losses, sum(held_out) / len(held_out)


def krait_runs(a, recipe):
    # One step that leaves the first weights as they are.
    count = "batch=1" if "batch" in recipe["train"] else f"batch_tokens={recipe['data']['length']}"
    krait_run(a, a.work / "first", "train.steps=1", f"train.{count}", "schedule.peak=1e-30", "validation.batches=1")
    quiet = ["sample.every=1000000"] if "sample" in recipe else []
    for run in range(a.runs):
        krait_run(a, a.work / f"krait-{run}", f"train.steps={a.steps}", f"validation.every={a.steps}",
                  "validation.batches=1000000", f"optimizer.eps={eps_of(run)}", *quiet)


def krait_result(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [l["loss"] for l in lines if "loss" in l], [l["valid_loss"] for l in lines if "valid_loss" in l][-1]


def compare(a):
    """Prints both, if both are there."""
    peers, folders = ([a.work / f"{name}-{run}" for run in range(a.runs)] for name in ("torch", "krait"))
    if not all((f / "losses.json").exists() for f in peers) or not all((f / "metrics.jsonl").exists() for f in folders):
        return
    ours, theirs = [krait_result(f) for f in folders], [json.loads((f / "losses.json").read_text()) for f in peers]
    steps = len(ours[0][0])
    assert all(len(losses) == steps for losses, _ in ours + theirs)
    for step in sorted({1, *range(25, steps + 1, 25), steps}):
        print(f"step {step:5}: krait {ours[0][0][step - 1]:.5f}, PyTorch {theirs[0][0][step - 1]:.5f}")
    valid = [[v for _, v in results] for results in (ours, theirs)]
    for name, values in zip(("krait", "PyTorch"), valid):
        print(f"validation after {steps} steps, {name}: {', '.join(f'{v:.5f}' for v in values)}; "
              f"mean {statistics.fmean(values):.5f}")
    print(f"krait's mean {100 * (statistics.fmean(valid[0]) / statistics.fmean(valid[1]) - 1):+.2f} % (bar +0.5 %)")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("recipe")
    p.add_argument("--krait", default="build/krait")
    p.add_argument("--steps", type=int, default=300)
    p.add_argument("--work", type=Path, default=Path("compare"))
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--part", choices=("krait", "torch", "both"), default="both")
    p.add_argument("--device", default="cpu")
    p.add_argument("--micro-batch", type=int, default=0)
    p.add_argument("--reference")
    p.add_argument("--runs", type=int, default=1)
    a = p.parse_args()
    recipe = tomllib.loads(Path(a.recipe).read_text())
    if a.part != "torch":
        krait_runs(a, recipe)
    if a.part != "krait":
        torch.set_num_threads(a.threads)
        first = next((a.work / "first").glob("step-*"))
        for run in range(a.runs):
            folder = a.work / f"torch-{run}"
            folder.mkdir(exist_ok=True)
            (folder / "losses.json").write_text(json.dumps(torch_run(a, recipe, first, run)))
    compare(a)


if __name__ == "__main__":
    main()
