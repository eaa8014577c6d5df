#!/usr/bin/env python3
"""Training speed: Krait against transformers' CPU path, on models of the same shape, side by side in one run.

  PYTHON bench/compare_training.py MODEL… [--krait build/krait] [--batch 1] [--length 1024] [--rounds 3] [--threads 2]

MODEL: folders in the original form (config.json) of Mamba-1 or Mamba-2. PYTHON needs torch and transformers. A step is
forward, backward, clipping and AdamW on random ids in f32. Prints tokens a second of both, the ratio of the best, and the
ratios of each round.
"""
import argparse
import json
import subprocess
import time
from pathlib import Path


def transformers_model(config):
    from transformers import Mamba2Config, Mamba2ForCausalLM, MambaConfig, MambaForCausalLM

    ssm = config.get("ssm_cfg", {})
    vocab = -(-config["vocab_size"] // config.get("pad_vocab_size_multiple", 8)) * config.get("pad_vocab_size_multiple", 8)
    common = dict(vocab_size=vocab, hidden_size=config["d_model"], num_hidden_layers=config["n_layer"], conv_kernel=4,
                  expand=ssm.get("expand", 2), use_bias=False, use_cache=False)
    if ssm.get("layer", "Mamba1") == "Mamba2":
        headdim = ssm.get("headdim", 64)
        return Mamba2ForCausalLM(Mamba2Config(**common, state_size=ssm.get("d_state", 128), head_dim=headdim, n_groups=1,
                                              num_heads=2 * config["d_model"] // headdim, tie_word_embeddings=True))
    return MambaForCausalLM(MambaConfig(**common, state_size=ssm.get("d_state", 16)))


class Peer:
    """One training step of transformers at a time."""

    def __init__(self, config, a):
        import torch

        torch.set_num_threads(a.threads)
        torch.manual_seed(1)
        self.torch = torch
        self.model = transformers_model(config).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.ids = torch.randint(0, config["vocab_size"], (a.batch, a.length + 1))
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.step()

    def step(self):
        start = time.monotonic()
        logits = self.model(self.ids[:, :-1]).logits
        loss = self.torch.nn.functional.cross_entropy(logits.flatten(0, 1), self.ids[:, 1:].flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return time.monotonic() - start


def krait_step(folder, a):
    out = subprocess.run([a.krait, "bench", "train", str(folder), "--batch", str(a.batch), "--length", str(a.length), "--steps",
                          "2", "--threads", str(a.threads), "--json"], capture_output=True, text=True)
    if out.returncode != 0:
        raise SystemExit(f"krait: {out.stderr}")
    return json.loads(out.stdout)


def compare(folder, a):
    config = json.loads((folder / "config.json").read_text())
    peer = Peer(config, a)
    tokens = a.batch * a.length
    ours, theirs = [], []
    for _ in range(a.rounds):
        report = krait_step(folder, a)
        ours.append(report["tokens_per_second"])
        theirs.append(tokens / peer.step())
    assert abs(report["parameters"] / peer.parameters - 1) < 0.01, (report["parameters"], peer.parameters)
    ratios = ", ".join(f"{o / t:.1f}" for o, t in zip(ours, theirs))
    print(f"{folder.name:20} {a.batch} x {a.length}: krait {max(ours):8.0f} tok/s, transformers {max(theirs):8.0f} tok/s: "
          f"{max(ours) / max(theirs):5.1f}x (rounds {ratios}); {100 * report['share_of_f32_peak']:.0f} % of "
          f"{report['f32_peak_gflops']:.0f} GFLOP/s", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models", nargs="+", type=Path)
    p.add_argument("--krait", default="build/krait")
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--length", type=int, default=1024)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    for folder in a.models:
        compare(folder, a)


if __name__ == "__main__":
    main()
