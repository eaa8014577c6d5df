// The kernels of training. What a gradient is added to is drawn, too.
#include <limits>
#include <utility>

#include "krait/backends/cpu/kernel_check_cases.h"

namespace krait::kernel_check {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

Case cross_entropy(int64_t V, int64_t columns) {
  return [=](const KernelSet& k, const Exec& e) {
    constexpr int64_t T = 5;
    Floats logits = normals(T * columns, 1, 3), nll(T), lse(T);
    const Floats weight{1, 0.5f, 1, 0, 2};
    const std::array<int32_t, T> target{2, static_cast<int32_t>(V - 1), -1, 0, 3};
    k.cross_entropy(e, {logits.data(), columns, columns, target.data(), weight.data(), 0.25f, 0.125f, true, nll.data(),
                        lse.data(), T, V});
    return joined({&logits, &nll, &lse});
  };
}

Case distill(int64_t V) {
  return [=](const KernelSet& k, const Exec& e) {
    constexpr int64_t T = 5;
    const Floats logits = normals(T * V, 1, 3), weight{1, 0.5f, 1, 0, 2};
    Floats teacher = normals(T * V, 2, 3), kl(T);
    const std::array<int32_t, T> target{2, 1, -1, 0, 3};
    k.distill(e, {logits.data(), V, teacher.data(), V, target.data(), weight.data(), 4, 2, true, kl.data(), T, V});
    return joined({&teacher, &kl});
  };
}

Case matmul_grad(int64_t T, int64_t N, int64_t K) {
  return [=](const KernelSet& k, const Exec& e) {
    const Floats dy = normals(T * N, 1), x = normals(T * K, 2);
    Floats dw = normals(N * K, 3), db = normals(N, 4);
    k.matmul_grad(e, {dy.data(), N, x.data(), K, dw.data(), db.data(), T, N, K});
    return joined({&dw, &db});
  };
}

Case norm_grad(NormKind kind, int64_t D) {
  return [=](const KernelSet& k, const Exec& e) {
    const Floats r = normals(7 * D, 1), w = normals(D, 2), dy = normals(7 * D, 3);
    Floats dr = normals(7 * D, 4), dw = normals(D, 5), db = normals(D, 6);
    float* const of_bias = kind == NormKind::kLayer ? db.data() : nullptr;
    k.norm_grad(e, {kind, r.data(), D, w.data(), 1e-5f, dy.data(), D, dr.data(), D, dw.data(), of_bias, 7, D});
    return joined({&dr, &dw, &db});
  };
}

Case gated_norm_grad(bool norm_first, int64_t D, int64_t G) {
  return [=](const KernelSet& k, const Exec& e) {
    const Floats y = normals(7 * D, 1), z = normals(7 * D, 2), w = normals(D, 3), dout = normals(7 * D, 4);
    Floats dy = normals(7 * D, 5), dz = normals(7 * D, 6), dw = normals(D, 7);
    k.gated_norm_grad(e, {{y.data(), D, z.data(), D, w.data(), 1e-5f, norm_first, nullptr, D, 7, D, G},
                          dout.data(),
                          D,
                          dy.data(),
                          D,
                          dz.data(),
                          D,
                          dw.data()});
    return joined({&dy, &dz, &dw});
  };
}

Floats silu_gate_grad(const KernelSet& k, const Exec& e) {
  constexpr int64_t T = 7, D = 101;
  const Floats a = normals(T * D, 1), gate = normals(T * D, 2, 4), dout = normals(T * D, 3);
  Floats da = normals(T * D, 4), dgate = normals(T * D, 5);
  k.silu_gate_grad(e, {{a.data(), D, gate.data(), D, nullptr, D, T, D}, dout.data(), D, da.data(), D, dgate.data(), D});
  return joined({&da, &dgate});
}

Floats embed_grad(const KernelSet& k, const Exec& e) {
  constexpr int64_t V = 11, D = 101;
  const std::array<int32_t, 4> ids{3, 0, 10, 3};
  const Floats dy = normals(4 * D, 1);
  Floats dtable = normals(V * D, 2);
  k.embed_grad(e, {ids.data(), dy.data(), D, dtable.data(), 4, D});
  return dtable;
}

Case causal_conv_grad(int64_t C, int64_t W, bool silu) {
  return [=](const KernelSet& k, const Exec& e) {
    const int64_t state = (W - 1) * C;
    const Floats x = normals(kTokens * C, 1), w = normals(W * C, 2), b = normals(C, 3),
                 before = normals(kSlotCount * state, 4), dy = normals(kTokens * C, 5);
    Floats dx = normals(kTokens * C, 6), dw = normals(W * C, 7), db = normals(C, 8),
           dstate = normals(kSlotCount * state, 9);
    k.causal_conv_grad(e, {{kSpans, x.data(), C, w.data(), b.data(), silu, nullptr, C, nullptr, state, C, W},
                           before.data(),
                           dy.data(),
                           C,
                           dx.data(),
                           C,
                           dw.data(),
                           db.data(),
                           dstate.data(),
                           state});
    return joined({&dx, &dw, &db, &dstate});
  };
}

Case mamba1_scan_grad(int64_t E, int64_t N, bool gate) {
  return [=](const KernelSet& k, const Exec& e) {
    const Floats x = normals(kTokens * E, 1), dt = normals(kTokens * E, 2), B = normals(kTokens * N, 3),
                 C = normals(kTokens * N, 4), z = normals(kTokens * E, 5), A = negative(N * E, 6), D = normals(E, 7),
                 bias = normals(E, 8), before = normals(kSlotCount * N * E, 9), dy = normals(kTokens * E, 10);
    Floats dx = normals(kTokens * E, 11), ddt = normals(kTokens * E, 12), dB = normals(kTokens * N, 13),
           dC = normals(kTokens * N, 14), dz = normals(kTokens * E, 15), dA = normals(N * E, 16), dD = normals(E, 17),
           dbias = normals(E, 18), dstate = normals(kSlotCount * N * E, 19);
    Mamba1ScanGradParams p{};
    Mamba1ScanParams& f = p.f;
    f.spans = kSpans;
    f.x = x.data(), f.dt = dt.data(), f.ldx = f.lddt = E;
    f.B = B.data(), f.C = C.data(), f.ldb = f.ldc = N;
    if (gate) f.z = z.data(), f.ldz = E, p.dz = dz.data(), p.lddz = E;
    f.A = A.data(), f.D = D.data(), f.dt_bias = bias.data(), f.softplus = true;
    f.E = E, f.N = N;
    p.before = before.data();
    p.dy = dy.data(), p.lddy = E;
    p.dx = dx.data(), p.ddt = ddt.data(), p.lddx = p.ldddt = E;
    p.dB = dB.data(), p.dC = dC.data(), p.lddB = p.lddC = N;
    p.dA = dA.data(), p.dD = dD.data(), p.ddt_bias = dbias.data();
    p.dstate = dstate.data(), p.dstate_stride = N * E;
    k.mamba1_scan_grad(e, p);
    return joined({&dx, &ddt, &dB, &dC, &dz, &dA, &dD, &dbias, &dstate});
  };
}

Case ssd_scan_grad(int64_t H, int64_t P, int64_t N, int64_t G, bool D_per_channel) {
  return [=](const KernelSet& k, const Exec& e) {
    const int64_t E = H * P, keys = G * N;
    const Floats x = normals(kTokens * E, 1), dt = normals(kTokens * H, 2), B = normals(kTokens * keys, 3),
                 C = normals(kTokens * keys, 4), A = negative(H, 5), D = normals(E, 6), bias = normals(H, 7),
                 before = normals(kSlotCount * E * N, 8), dy = normals(kTokens * E, 9);
    Floats dx = normals(kTokens * E, 10), ddt = normals(kTokens * H, 11), dB = normals(kTokens * keys, 12),
           dC = normals(kTokens * keys, 13), dA = normals(H, 14), dD = normals(E, 15), dbias = normals(H, 16),
           dstate = normals(kSlotCount * E * N, 17);
    SsdScanGradParams p{};
    SsdScanParams& f = p.f;
    f.spans = kSpans;
    f.x = x.data(), f.ldx = E, f.dt = dt.data(), f.lddt = H;
    f.B = B.data(), f.C = C.data(), f.ldb = f.ldc = keys;
    f.A = A.data(), f.D = D.data(), f.D_per_channel = D_per_channel, f.dt_bias = bias.data();
    f.dt_min = 0, f.dt_max = kInf;
    f.H = H, f.P = P, f.N = N, f.G = G;
    p.before = before.data();
    p.dy = dy.data(), p.lddy = E;
    p.dx = dx.data(), p.lddx = E, p.ddt = ddt.data(), p.ldddt = H;
    p.dB = dB.data(), p.dC = dC.data(), p.lddB = p.lddC = keys;
    p.dA = dA.data(), p.dD = dD.data(), p.ddt_bias = dbias.data();
    p.dstate = dstate.data(), p.dstate_stride = E * N;
    k.ssd_scan_grad(e, p);
    return joined({&dx, &ddt, &dB, &dC, &dA, &dD, &dbias, &dstate});
  };
}

Case mamba3_scan_grad(Mamba3Sizes n) {
  return [=](const KernelSet& k, const Exec& e) {
    const int64_t E = n.H * n.P, keys = n.R * n.G * n.N, ld = 2 * E + 2 * keys + 3 * n.H + n.F;
    uint64_t seed = 1;
    const auto next = [&](int64_t count) { return normals(count, seed++); };
    // Each vector of parameters with its gradient: dt_bias, B_bias, C_bias, B_norm, C_norm, D, mimo_x, _z, _o,
    // out_norm.
    const int64_t sizes[] = {n.H, n.H * n.R * n.N, n.H * n.R * n.N, n.N, n.N, n.H, n.R * E, n.R * E, n.R * E, E};
    std::array<Floats, 10> vectors, dvectors;
    for (size_t i = 0; i < 10; ++i) vectors[i] = next(sizes[i]), dvectors[i] = next(sizes[i]);
    const Floats rows = next(kTokens * ld), S = next(kSlotCount * E * n.N), key = next(kSlotCount * n.R * n.H * n.N),
                 x_prev = next(kSlotCount * E), dout = next(kTokens * E);
    Floats drows = next(kTokens * ld), dphase = next(kSlotCount * n.H * n.F), dS = next(kSlotCount * E * n.N),
           dkey = next(kSlotCount * n.R * n.H * n.N), dx_prev = next(kSlotCount * E);
    const std::vector<int32_t> phase(static_cast<size_t>(kSlotCount * n.H * n.F), 1 << 28);
    Mamba3ScanGradParams p{};
    Mamba3ScanParams& f = p.f;
    f.spans = kSpans;
    const int64_t widths[] = {E, E, keys, keys, n.H, n.H, n.H, n.F};
    const float** slices[] = {&f.z, &f.x, &f.B, &f.C, &f.dd_dt, &f.dd_A, &f.trap, &f.angle};
    float** dslices[] = {&p.dz, &p.dx, &p.dB, &p.dC, &p.ddd_dt, &p.ddd_A, &p.dtrap, &p.dangle};
    for (int64_t i = 0, at = 0; i < 8; at += widths[i++]) {
      *slices[i] = rows.data() + at;
      *dslices[i] = drows.data() + at;
    }
    f.ld = p.ldd = ld;
    const float** parameters[] = {&f.dt_bias, &f.B_bias, &f.C_bias, &f.B_norm, &f.C_norm,
                                  &f.D,       &f.mimo_x, &f.mimo_z, &f.mimo_o, &f.out_norm};
    float** dparameters[] = {&p.ddt_bias, &p.dB_bias, &p.dC_bias, &p.dB_norm, &p.dC_norm,
                             &p.dD,       &p.dmimo_x, &p.dmimo_z, &p.dmimo_o, &p.dout_norm};
    for (size_t i = 0; i < 10; ++i) {
      if ((i >= 6 && i < 9 && n.R == 1) || (i == 9 && !n.out_norm)) continue;
      *parameters[i] = vectors[i].data();
      *dparameters[i] = dvectors[i].data();
    }
    f.eps = 1e-5f, f.A_floor = 1e-4f, f.pairing = n.pairing;
    f.H = n.H, f.P = n.P, f.N = n.N, f.G = n.G, f.R = n.R, f.F = n.F;
    p.phase_before = phase.data();
    p.S_before = S.data(), p.k_before = key.data(), p.x_prev_before = x_prev.data();
    p.dout = dout.data(), p.lddout = E;
    p.dphase = dphase.data(), p.dphase_stride = n.H * n.F;
    p.dS = dS.data(), p.dS_stride = E * n.N;
    p.dk = dkey.data(), p.dk_stride = n.R * n.H * n.N;
    p.dx_prev = dx_prev.data(), p.dx_prev_stride = E;
    k.mamba3_scan_grad(e, p);
    Floats all = joined({&drows, &dphase, &dS, &dkey, &dx_prev});
    for (const Floats& d : dvectors) all.insert(all.end(), d.begin(), d.end());
    return all;
  };
}

}  // namespace

std::vector<NamedCase> gradient_cases() {
  return {
      {"cross_entropy", cross_entropy(97, 104)},
      {"distill", distill(101)},
      {"matmul_grad", matmul_grad(9, 70, 512)},
      {"matmul_grad one row", matmul_grad(1, 33, 17)},
      {"norm_grad rms", norm_grad(NormKind::kRms, 768)},
      {"norm_grad layer", norm_grad(NormKind::kLayer, 101)},
      {"gated_norm_grad gate first", gated_norm_grad(false, 96, 4)},
      {"gated_norm_grad norm first", gated_norm_grad(true, 101, 1)},
      {"silu_gate_grad", silu_gate_grad},
      {"embed_grad", embed_grad, 0},
      {"causal_conv_grad", causal_conv_grad(101, 4, true)},
      {"causal_conv_grad wide", causal_conv_grad(64, 7, false)},
      {"mamba1_scan_grad", mamba1_scan_grad(96, 16, true)},
      {"mamba1_scan_grad odd", mamba1_scan_grad(37, 5, false)},
      {"ssd_scan_grad", ssd_scan_grad(4, 64, 128, 1, false)},
      {"ssd_scan_grad groups", ssd_scan_grad(6, 20, 33, 2, true)},
      {"mamba3_scan_grad siso", mamba3_scan_grad({2, 64, 128, 1, 1, 32, RotaryPairing::kInterleaved, false})},
      {"mamba3_scan_grad mimo", mamba3_scan_grad({2, 64, 128, 1, 4, 32, RotaryPairing::kHalves, false})},
      {"mamba3_scan_grad odd", mamba3_scan_grad({6, 33, 18, 2, 3, 4, RotaryPairing::kHalves, true})},
  };
}

}  // namespace krait::kernel_check
