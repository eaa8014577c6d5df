// Where a forward pass goes, kernel by kernel: a kernel set that times every call of another one. Nothing is timed, and
// nothing costs anything, in a model that was not made with it.
#pragma once
#include <string>
#include <vector>

#include "krait/backends/cpu/roofline.h"
#include "krait/kernels/kernel_set.h"
#include "krait/models/model.h"

namespace krait::cli {

// All calls of one kernel; of the matmul, with one shape and type of weight.
struct OpCost {
  const char* kernel = "";
  int64_t N = 0, K = 0;  // matmul: the weight
  DType dtype = DType::kF32;
  int64_t calls = 0;
  double seconds = 0;
  double bytes = 0;  // least traffic to memory: weights, states, rows in and out, each once
  double flops = 0;  // a multiply-add counts two; of a scan, the instructions that walk the state
};

// `inner`, timed. One set at a time: the last one made. Calls count between start_profile and stop_profile only.
const KernelSet& profiled(const KernelSet& inner);
void start_profile();
std::vector<OpCost> stop_profile();  // dearest first

// "matmul in_proj (bf16)", "matmul head (Q6_K)": the tensors of the model that have the shape of a matmul, and its
// type; other kernels by their name.
std::string op_name(const Model&, const OpCost&);

// Operations a second (10^9) that products with weights of this type can reach.
double arithmetic_peak(const Roofline&, DType weights, Compute);

// Least seconds the calls could take: arithmetic at its peak or traffic at the read bandwidth, whichever is longer.
double least_seconds(const OpCost&, const Roofline&, Compute);

}  // namespace krait::cli
