#!/usr/bin/env python3
"""Writes fixtures/blocks.gguf: random blocks of every type, and beside each the values that the gguf package reads from it."""
import pathlib

import gguf
import numpy as np

NAMES = "Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS".split()
SHAPE = (2, 256)

rng = np.random.default_rng(1)
writer = gguf.GGUFWriter(pathlib.Path(__file__).parent / "fixtures" / "blocks.gguf", "blocks")
for name in NAMES:
    kind = gguf.GGMLQuantizationType[name]
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    while True:  # random bytes, until no scale is infinite or NaN
        blocks = rng.integers(0, 256, (SHAPE[0], SHAPE[1] // elements * size), dtype=np.uint8)
        with np.errstate(all="ignore"):
            values = gguf.dequantize(blocks, kind)
        if np.isfinite(values).all():
            break
    writer.add_tensor(name.lower(), blocks, raw_dtype=kind)
    writer.add_tensor(name.lower() + ".f32", values)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
