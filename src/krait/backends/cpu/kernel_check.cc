#include "krait/backends/cpu/kernel_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "krait/backends/cpu/cpu_backend.h"
#include "krait/backends/cpu/kernel_check_cases.h"
#include "krait/core/half.h"
#include "krait/core/tensor.h"
#include "krait/kernels/blocks.h"

namespace krait {
namespace {

using namespace kernel_check;

// Blocks of any codes, for all bytes are valid ones, with scales of 2^-7 to 2^-3 and both signs.
template <DType kType>
void fill_blocks(std::vector<std::byte>& raw, Rng& rng) {
  using Block = typename BlockOf<kType>::type;
  const auto scale = [&] {
    return static_cast<uint16_t>((0x2000 + rng.below(0x1000)) | (rng.below(2) != 0 ? 0x8000u : 0u));
  };
  for (std::byte& b : raw) b = static_cast<std::byte>(rng.below(0x100));
  for (size_t at = 0; at < raw.size(); at += sizeof(Block)) {
    Block b;
    std::memcpy(&b, raw.data() + at, sizeof b);
    b.d = scale();
    if constexpr (requires { b.m; }) b.m = scale();
    if constexpr (requires { b.dmin; }) b.dmin = scale();
    std::memcpy(raw.data() + at, &b, sizeof b);
  }
}

// [N, K] as a checkpoint holds it.
std::vector<std::byte> weight(DType dtype, int64_t n) {
  std::vector<std::byte> raw(static_cast<size_t>(bytes_of(dtype, n)));
  Rng rng(3);
  switch (dtype) {
#define KRAIT_FILL(type)                   \
  case DType::k##type:                     \
    fill_blocks<DType::k##type>(raw, rng); \
    return raw;
    KRAIT_BLOCK_TYPES(KRAIT_FILL)
#undef KRAIT_FILL
    default:
      break;
  }
  for (int64_t i = 0; i < n; ++i) {
    const auto v = static_cast<float>(rng.normal());
    const uint16_t half = dtype == DType::kBF16 ? f32_to_bf16(v) : f32_to_f16(v);
    if (dtype == DType::kF32) {
      std::memcpy(raw.data() + 4 * i, &v, 4);
    } else {
      std::memcpy(raw.data() + 2 * i, &half, 2);
    }
  }
  return raw;
}

Case matmul(DType dtype, Compute compute, int64_t M) {
  return [=](const KernelSet& k, const Exec& e) {
    constexpr int64_t N = 70, K = 512;
    const auto raw = weight(dtype, N * K);
    Tensor packed = Tensor::empty({static_cast<int64_t>(k.packed_weight_bytes(dtype, N, K))}, DType::kU8);
    k.pack_weight(e, {raw.data(), dtype, N, K, packed.bytes()});
    const Floats x = normals(M * K, 1), bias = normals(N, 2);
    Floats y(static_cast<size_t>(M * N));
    k.matmul(e, {x.data(), K, packed.bytes(), dtype, compute, bias.data(), y.data(), N, M, N, K});
    return y;
  };
}

Case embed(DType dtype) {
  return [=](const KernelSet& k, const Exec& e) {
    constexpr int64_t V = 11, D = 512;
    const auto table = weight(dtype, V * D);
    const std::array<int32_t, 4> ids{3, 0, 10, 3};
    Floats y(ids.size() * D);
    k.embed(e, {table.data(), dtype, ids.data(), y.data(), static_cast<int64_t>(ids.size()), D});
    return y;
  };
}

Case norm(NormKind kind, int64_t D) {
  return [=](const KernelSet& k, const Exec& e) {
    const Floats x = normals(7 * D, 1), w = normals(D, 2), b = normals(D, 3);
    Floats residual = normals(7 * D, 4), y(residual.size());
    const float* bias = kind == NormKind::kLayer ? b.data() : nullptr;
    k.norm(e, {kind, x.data(), D, residual.data(), w.data(), bias, 1e-5f, y.data(), D, 7, D});
    return joined({&y, &residual});
  };
}

Case gated_norm(bool norm_first, int64_t D, int64_t G) {
  return [=](const KernelSet& k, const Exec& e) {
    const Floats y = normals(7 * D, 1), z = normals(7 * D, 2), w = normals(D, 3);
    Floats out(y.size());
    k.gated_norm(e, {y.data(), D, z.data(), D, w.data(), 1e-5f, norm_first, out.data(), D, 7, D, G});
    return out;
  };
}

Floats silu_gate(const KernelSet& k, const Exec& e) {
  constexpr int64_t T = 7, D = 101;
  const Floats a = normals(T * D, 1), gate = normals(T * D, 2, 4);
  Floats out(a.size());
  k.silu_gate(e, {a.data(), D, gate.data(), D, out.data(), D, T, D});
  return out;
}

Floats add(const KernelSet& k, const Exec& e) {
  constexpr int64_t T = 7, D = 101;
  const Floats x = normals(T * D, 1);
  Floats y = normals(T * D, 2);
  k.add(e, {x.data(), D, y.data(), D, T, D});
  return y;
}

Case causal_conv(int64_t C, int64_t W, bool silu) {
  return [=](const KernelSet& k, const Exec& e) {
    const Floats x = normals(kTokens * C, 1), w = normals(W * C, 2), b = normals(C, 3);
    Floats state = normals(kSlotCount * (W - 1) * C, 4), y(x.size());
    k.causal_conv(e, {kSpans, x.data(), C, w.data(), b.data(), silu, y.data(), C, state.data(), (W - 1) * C, C, W});
    return joined({&y, &state});
  };
}

Case mamba1_scan(int64_t E, int64_t N, bool gate) {
  return [=](const KernelSet& k, const Exec& e) {
    const Floats x = normals(kTokens * E, 1), dt = normals(kTokens * E, 2), B = normals(kTokens * N, 3),
                 C = normals(kTokens * N, 4), z = normals(kTokens * E, 5), A = negative(N * E, 6), D = normals(E, 7),
                 bias = normals(E, 8);
    Floats state = normals(kSlotCount * N * E, 9), y(x.size());
    k.mamba1_scan(
        e, {kSpans, x.data(), E,        dt.data(),   E,    B.data(), N, C.data(),     N,     gate ? z.data() : nullptr,
            E,      A.data(), D.data(), bias.data(), true, y.data(), E, state.data(), N * E, E,
            N});
    return joined({&y, &state});
  };
}

Case ssd_scan(int64_t H, int64_t P, int64_t N, int64_t G, bool D_per_channel) {
  return [=](const KernelSet& k, const Exec& e) {
    const int64_t E = H * P;
    const Floats x = normals(kTokens * E, 1), dt = normals(kTokens * H, 2), B = normals(kTokens * G * N, 3),
                 C = normals(kTokens * G * N, 4), A = negative(H, 5), D = normals(E, 6), bias = normals(H, 7);
    Floats state = normals(kSlotCount * E * N, 8), y(x.size());
    k.ssd_scan(e, {kSpans,      x.data(), E,
                   dt.data(),   H,        B.data(),
                   G * N,       C.data(), G * N,
                   A.data(),    D.data(), D_per_channel,
                   bias.data(), 0,        std::numeric_limits<float>::infinity(),
                   y.data(),    E,        state.data(),
                   E * N,       H,        P,
                   N,           G});
    return joined({&y, &state});
  };
}

Case mamba3_scan(Mamba3Sizes n) {
  return [=](const KernelSet& k, const Exec& e) {
    const int64_t E = n.H * n.P, keys = n.R * n.G * n.N, ld = 2 * E + 2 * keys + 3 * n.H + n.F;
    const Floats rows = normals(kTokens * ld, 1), bias = normals(n.H, 2), D = normals(n.H, 3),
                 B_bias = normals(n.H * n.R * n.N, 4), C_bias = normals(n.H * n.R * n.N, 5), B_norm = normals(n.N, 6),
                 C_norm = normals(n.N, 7), mimo_x = normals(n.R * E, 8), mimo_z = normals(n.R * E, 9),
                 mimo_o = normals(n.R * E, 10), out_norm = normals(E, 11);
    Floats S = normals(kSlotCount * E * n.N, 12), key = normals(kSlotCount * n.R * n.H * n.N, 13),
           x_prev = normals(kSlotCount * E, 14), out(static_cast<size_t>(kTokens * E));
    std::vector<int32_t> phase(static_cast<size_t>(kSlotCount * n.H * n.F));
    Mamba3ScanParams p{};
    p.spans = kSpans;
    const float* at = rows.data();
    const auto next = [&](int64_t width) { return std::exchange(at, at + width); };
    p.z = next(E), p.x = next(E), p.B = next(keys), p.C = next(keys);
    p.dd_dt = next(n.H), p.dd_A = next(n.H), p.trap = next(n.H), p.angle = next(n.F);
    p.ld = ld;
    p.dt_bias = bias.data(), p.D = D.data();
    p.B_bias = B_bias.data(), p.C_bias = C_bias.data(), p.B_norm = B_norm.data(), p.C_norm = C_norm.data();
    if (n.R > 1) p.mimo_x = mimo_x.data(), p.mimo_z = mimo_z.data(), p.mimo_o = mimo_o.data();
    if (n.out_norm) p.out_norm = out_norm.data();
    p.eps = 1e-5f, p.A_floor = 1e-4f, p.pairing = n.pairing;
    p.out = out.data(), p.ldo = E;
    p.phase = phase.data(), p.phase_stride = n.H * n.F;
    p.S = S.data(), p.S_stride = E * n.N;
    p.k = key.data(), p.k_stride = n.R * n.H * n.N;
    p.x_prev = x_prev.data(), p.x_prev_stride = E;
    p.H = n.H, p.P = n.P, p.N = n.N, p.G = n.G, p.R = n.R, p.F = n.F;
    k.mamba3_scan(e, p);
    Floats turns;
    for (const int32_t v : phase) turns.push_back(static_cast<float>(v) * 0x1p-32f);
    return joined({&out, &S, &key, &x_prev, &turns});
  };
}

double relative_rms(const Floats& got, const Floats& want) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double w = static_cast<double>(want[i]), d = static_cast<double>(got[i]) - w;
    error += d * d;
    norm += w * w;
  }
  const double r = std::sqrt(error / norm);
  return std::isfinite(r) ? r : std::numeric_limits<double>::quiet_NaN();
}

std::vector<NamedCase> forward_cases() {
  std::vector<NamedCase> all;
  const auto add_case = [&](std::string what, Case run, double bound = kBound) {
    all.push_back({std::move(what), std::move(run), bound});
  };
  const auto name = [](DType t) { return std::string(name_of(t)); };
  std::vector<DType> types{DType::kF32, DType::kBF16, DType::kF16};
#define KRAIT_PUSH(type) types.push_back(DType::k##type);
  KRAIT_BLOCK_TYPES(KRAIT_PUSH)
#undef KRAIT_PUSH
  for (const DType t : types) {
    const double bound = is_block_type(t) ? 0 : kBound;  // their arithmetic is defined to the bit
    for (const int64_t M : {1, 9}) {
      add_case("matmul " + name(t) + (M == 1 ? ", one row" : ""), matmul(t, Compute::kF32, M), bound);
    }
    add_case("embed " + name(t), embed(t), bound);
  }
  for (const int64_t M : {1, 9}) {
    add_case("matmul bf16 as bf16x2", matmul(DType::kBF16, Compute::kBF16x2, M));
    add_case("matmul bf16 as bf16", matmul(DType::kBF16, Compute::kBF16, M));
  }
  add_case("norm rms", norm(NormKind::kRms, 768));
  add_case("norm layer", norm(NormKind::kLayer, 101));
  add_case("gated_norm gate first", gated_norm(false, 96, 4));
  add_case("gated_norm norm first", gated_norm(true, 101, 1));
  add_case("silu_gate", silu_gate);
  add_case("add", add);
  add_case("causal_conv", causal_conv(101, 4, true));
  add_case("causal_conv wide", causal_conv(64, 7, false));
  add_case("mamba1_scan", mamba1_scan(96, 16, true));
  add_case("mamba1_scan odd", mamba1_scan(37, 5, false));
  add_case("ssd_scan", ssd_scan(4, 64, 128, 1, false));
  add_case("ssd_scan groups", ssd_scan(6, 20, 33, 2, true));
  add_case("mamba3_scan siso", mamba3_scan({2, 64, 128, 1, 1, 32, RotaryPairing::kInterleaved, false}));
  add_case("mamba3_scan mimo", mamba3_scan({2, 64, 128, 1, 4, 32, RotaryPairing::kHalves, false}));
  add_case("mamba3_scan odd", mamba3_scan({6, 33, 18, 2, 3, 4, RotaryPairing::kHalves, true}));
  return all;
}

}  // namespace

std::vector<KernelCheck> check_kernels(const KernelSet& set, ThreadPool& pool) {
  const KernelSet& reference = *cpu_kernels("cpu-scalar");
  const Exec exec{&pool};
  std::vector<KernelCheck> checks;
  for (const auto& cases : {forward_cases(), gradient_cases()}) {
    for (const auto& [name, run, bound] : cases) {
      checks.push_back({name, relative_rms(run(set, exec), run(reference, exec)), bound});
    }
  }
  return checks;
}

}  // namespace krait
