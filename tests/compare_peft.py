#!/usr/bin/env python3
"""Adapters against the peft package: python tests/compare_peft.py KRAIT MODEL [--rank R] [--rslora]

MODEL is a folder in the transformers form (model_type mamba or mamba2). An adapter with random factors is compared
by the logits of random ids: written by peft and read by Krait; merged by Krait and read by transformers; combined with
itself by Krait and read by peft. Fails above 1e-4 relative RMS. Without peft, or the model,
it says so and exits with 77, which ctest counts as skipped."""
import argparse
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import peft
    import torch
    import transformers
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

BOUND = 1e-4
TARGETS = {
    "mamba": [["in_proj", "x_proj", "out_proj", "embeddings"], ["dt_proj"]],
    "mamba2": [["in_proj", "out_proj", "embeddings"]],
}


def allow_all_targets():
    """peft refuses out_proj of these models, because their CUDA kernels bypass it; the CPU path does not."""
    for module in list(sys.modules.values()):
        if getattr(module, "_check_lora_target_modules_mamba", None) is not None:
            module._check_lora_target_modules_mamba = lambda *a, **k: None


def randomize(model):
    generator = torch.Generator().manual_seed(1)
    for name, p in model.named_parameters():
        if "lora_" in name:
            with torch.no_grad():
                p.copy_(torch.randn(p.shape, generator=generator) * 0.05)


def torch_logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor(ids, dtype=torch.long), use_cache=False).logits.float().numpy()


def krait_logits(krait, model, ids, folder, *options):
    np.save(folder / "ids.npy", ids.astype(np.int32))
    subprocess.run(
        [krait, "logits", model, "--weights", "f32", "--ids", folder / "ids.npy", "--out", folder / "logits.npy", *options],
        check=True,
    )
    return np.load(folder / "logits.npy")


def compare(what, got, want):
    error = float(np.sqrt(((got - want) ** 2).sum() / (want**2).sum()))
    print(f"{what:<52} relative RMS {error:.2e}")
    return error <= BOUND


def adapt(model_path, targets, a):
    base = transformers.AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    config = peft.LoraConfig(
        r=a.rank, lora_alpha=12, target_modules=targets, use_rslora=a.rslora, task_type="CAUSAL_LM"
    )
    adapted = peft.get_peft_model(base, config).eval()
    randomize(adapted)
    return adapted


def check(a, targets, ids, folder):
    print(f"{pathlib.Path(a.model).name}: {', '.join(targets)}")
    adapter, merged, two = (folder / f"{name}-{targets[0]}" for name in ("adapter", "merged", "two"))
    adapted = adapt(a.model, targets, a)
    adapted.save_pretrained(adapter)
    # transformers reads dt_proj's weight past the module: only peft's merge shows what its adapter means.
    want_of = (lambda m: m.merge_and_unload()) if targets == ["dt_proj"] else (lambda m: m)
    want = torch_logits(want_of(adapted), ids)
    got = krait_logits(a.krait, a.model, ids, folder, "--lora", adapter)
    ok = compare("  written by peft, read by krait", got, want)
    subprocess.run([a.krait, "lora", "merge", a.model, adapter, merged, "--to", "hf", "--dtype", "f32"], check=True)
    merged_model = transformers.AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
    ok &= compare("  merged by krait, read by transformers", torch_logits(merged_model, ids), want)
    subprocess.run([a.krait, "lora", "combine", a.model, two, f"{adapter}=0.5", adapter], check=True)
    fresh = transformers.AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32)
    want = torch_logits(want_of(peft.PeftModel.from_pretrained(fresh, two).eval()), ids)
    got = krait_logits(a.krait, a.model, ids, folder, "--lora", two)
    return ok & compare("  combined by krait (x 1.5), read by peft", got, want)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("krait")
    p.add_argument("model")
    p.add_argument("--rank", type=int, default=8)
    p.add_argument("--rslora", action="store_true")
    a = p.parse_args()
    if not pathlib.Path(a.model).is_dir():
        print(f"skipped: there is no {a.model}")
        return 77
    allow_all_targets()
    config = transformers.AutoConfig.from_pretrained(a.model)
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (2, 48))
    ok = True
    with tempfile.TemporaryDirectory() as folder:
        for targets in TARGETS[config.model_type]:
            ok &= check(a, targets, ids, pathlib.Path(folder))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
