// The gradients of one head of one sequence in the Mamba-3 scan: forward over a window of chunks, then back.
#pragma once
#include "krait/backends/cpu/isa/mamba3_chunk.h"

namespace krait::KRAIT_ISA {

// What one head of one sequence adds to its parameters, in floats from the start of its sums.
struct Mamba3Sums {
  explicit Mamba3Sums(const Mamba3Chunks& at) {
    dt_bias = 0;
    D = 16;
    B_bias = D + 16;
    C_bias = B_bias + at.tile;
    mimo_x = C_bias + at.tile;
    mimo_z = mimo_x + at.L * at.Pp;
    mimo_o = mimo_z + at.L * at.Pp;
    out_norm = mimo_o + at.L * at.Pp;
    size = out_norm + at.Pp;
  }
  int64_t dt_bias;                 // one number
  int64_t D;                       // [kLanes]
  int64_t B_bias, C_bias;          // [Np, L]
  int64_t mimo_x, mimo_z, mimo_o;  // [R, Pp]
  int64_t out_norm;                // [Pp]
  int64_t size;
};

// What one head hands on of one chunk, to be summed over heads; in floats.
struct Mamba3Parts {
  explicit Mamba3Parts(const Mamba3Chunks& at) : angle(2 * at.tile), size(angle + at.tokens * at.Fp) {}
  int64_t angle;  // [tokens, Fp] gradient of tanh(angle), behind those of b and c [2, Np, L]
  int64_t size;
};

// One window of one head of one sequence.
struct Mamba3Window {
  int64_t s, h;
  int64_t first;        // chunk of the sequence
  int64_t chunks;       // 1 <= chunks <= kWindow
  const float* shared;  // [chunks, Mamba3Chunks::shared]
  // State before the window: S with the look-ahead of the token before (spec/mamba.md §4.6), phases. Not read for a
  // sequence's first window.
  const float* S;        // [Np, Pp]
  const int32_t* phase;  // [Fp]
};

// State after the window into S_out [Np, Pp] and phase_out [Fp].
void mamba3_window_forward(const Mamba3ScanGradParams& p, const Mamba3Chunks& at, const Mamba3Window& w, float* S_out,
                           int32_t* phase_out);

// Walks the window back: gradients of z, x, dd_dt, dd_A and trap; `parts` [chunks, Mamba3Parts]; adds to `sums`.
// Between windows the gradient of the state stands in the state's own, dS and dphase.
void mamba3_window_back(const Mamba3ScanGradParams& p, const Mamba3Chunks& at, const float* masks,
                        const Mamba3Window& w, float* parts, float* sums);

// Masks [2, tokens, L] of 0 and 1: is the lane's token before token i, is it token i.
void mamba3_masks(const Mamba3Chunks& at, int64_t R, float* masks);

}  // namespace krait::KRAIT_ISA
