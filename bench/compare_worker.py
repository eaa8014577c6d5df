"""Measures llama.cpp through llama-cpp-python's low-level interface; started by compare_llamacpp.py in the peer's Python.

One JSON request a line on stdin, one JSON answer a line on stdout:
  {"op": "info"}                                          -> {"version", "system"}
  {"op": "load", "model", "threads"}                      -> {"bytes"}
  {"op": "measure", "tokens", "batch", "prompt"}          -> {"seconds"}: prompt: so many tokens read at once; else so
                                                             many steps of `batch` sequences together
  {"op": "logits", "ids"}                                 -> {"logits"}: of every position, for the check of equality
  {"op": "quantize", "source", "target", "type"}          -> {}
A request that fails is answered by {"error"}.
"""
import ctypes
import json
import os
import random
import sys
import time

import llama_cpp as llama

N_BATCH, N_UBATCH = 2048, 512  # as llama-bench has them
FILE_TYPES = {"F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q4_K_S": 14, "Q4_K_M": 15,
              "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30, "BF16": 32}

messages = []  # of the library, since the last request


@llama.llama_log_callback
def on_message(_level, text, _data):
    messages.append((text or b"").decode(errors="replace"))


def failed(what):
    return RuntimeError(what + ": " + " ".join("".join(messages[-8:]).split())[-400:])


def set_token(batch, i, token, position, sequence, wants_logits):
    batch.token[i], batch.pos[i] = token, position
    batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
    batch.logits[i] = wants_logits


class Model:
    def __init__(self, path, threads):
        self.handle = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
        if not self.handle:
            raise failed("llama.cpp does not load " + path)
        self.threads = threads
        self.vocab_size = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.handle))
        self.batch = llama.llama_batch_init(N_BATCH, 0, 1)
        self.contexts = {}  # by the number of sequences

    def close(self):
        for context in self.contexts.values():
            llama.llama_free(context)
        llama.llama_batch_free(self.batch)
        llama.llama_model_free(self.handle)

    def context(self, sequences):
        if sequences not in self.contexts:
            p = llama.llama_context_default_params()
            p.n_ctx = 4096 * sequences
            p.n_batch, p.n_ubatch, p.n_seq_max = N_BATCH, N_UBATCH, sequences
            p.n_threads = p.n_threads_batch = self.threads
            context = llama.llama_init_from_model(self.handle, p)
            if not context:
                raise failed(f"llama.cpp makes no context of {sequences} sequences")
            self.contexts[sequences] = context
        llama.llama_memory_clear(llama.llama_get_memory(self.contexts[sequences]), True)
        return self.contexts[sequences]

    def decode(self, context):
        status = llama.llama_decode(context, self.batch)
        if status != 0:
            raise failed(f"llama_decode returned {status}")

    def prompt_seconds(self, tokens):
        context, ids = self.context(1), self.random_ids(tokens)
        start = time.perf_counter()
        for first in range(0, tokens, N_BATCH):
            self.batch.n_tokens = min(N_BATCH, tokens - first)
            for i in range(self.batch.n_tokens):
                set_token(self.batch, i, ids[first + i], first + i, 0, first + i == tokens - 1)
            self.decode(context)
        llama.llama_synchronize(context)
        return time.perf_counter() - start

    def step_seconds(self, steps, sequences):
        context, ids = self.context(sequences), self.random_ids(steps * sequences)
        self.batch.n_tokens = sequences
        start = time.perf_counter()
        for step in range(steps):
            for s in range(sequences):
                set_token(self.batch, s, ids[step * sequences + s], step, s, True)
            self.decode(context)
            llama.llama_synchronize(context)
        return time.perf_counter() - start

    def logits(self, ids):
        if len(ids) > N_UBATCH:
            raise RuntimeError(f"at most {N_UBATCH} ids")
        context = self.context(1)
        self.batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            set_token(self.batch, i, token, i, 0, True)
        self.decode(context)
        return [llama.llama_get_logits_ith(context, i)[:self.vocab_size] for i in range(len(ids))]

    def random_ids(self, n):
        rng = random.Random(n)
        return [rng.randrange(self.vocab_size) for _ in range(n)]


def quantize(source, target, kind):
    if kind not in FILE_TYPES:
        raise RuntimeError(f"llama.cpp's quantizer is not asked for {kind}; known: {', '.join(FILE_TYPES)}")
    p = llama.llama_model_quantize_default_params()
    p.ftype = FILE_TYPES[kind]
    if llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(p)) != 0:
        raise failed(f"llama.cpp does not quantize {source} as {kind}")


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the library prints is not an answer
    llama.llama_log_set(on_message, ctypes.c_void_p(0))
    llama.llama_backend_init()
    model = None

    def answer(request):
        nonlocal model
        op = request["op"]
        if op == "info":
            return {"version": "llama-cpp-python " + llama.__version__,
                    "system": llama.llama_print_system_info().decode().strip(" |")}
        if op == "quantize":
            quantize(request["source"], request["target"], request["type"])
            return {}
        if op == "load":
            if model:
                model.close()
                model = None
            model = Model(request["model"], request["threads"])
            return {"bytes": llama.llama_model_size(model.handle)}
        if op == "logits":
            return {"logits": model.logits(request["ids"])}
        if request["prompt"]:
            return {"seconds": model.prompt_seconds(request["tokens"])}
        return {"seconds": model.step_seconds(request["tokens"], request["batch"])}

    for line in sys.stdin:
        messages.clear()
        try:
            result = answer(json.loads(line))
        except Exception as e:  # told to the one who asked; the next request may succeed
            result = {"error": str(e) or type(e).__name__}
        print(json.dumps(result), file=answers, flush=True)


main()
