#include "krait/backends/cpu/kernel_testing.h"
#include "krait/kernels/reference/norm.h"

namespace krait {
namespace {

using namespace testing_util;

constexpr double kU = tolerance::kF32Unit;

class NormGrad : public testing::TestWithParam<const KernelSet*> {
 protected:
  ThreadPool pool_{2};
};

// dw and db: products that erred by `errors`, and a sum of T terms from the stored value, in order.
double column_bound(double errors, double sum_abs, int64_t T) {
  return errors + static_cast<double>(T + 2) * kU * (sum_abs + 5);
}

void expect_norm(const KernelSet& set, ThreadPool& pool, NormKind kind, int64_t T, int64_t D, bool with_w) {
  SCOPED_TRACE(std::string(set.name) + " kind " + std::to_string(static_cast<int>(kind)) + " D " + std::to_string(D));
  const Rows r = Rows::random(T, D, 2, 1, 1, 0.5), dy = Rows::random(T, D, 1, 2);
  const std::vector<float> w = normals(D, 3);
  Rows dr = Rows::random(T, D, 3, 4);
  std::vector<float> dw = normals(D, 5), db = normals(D, 6);
  const std::vector<double> r64 = widened(r.data), dy64 = widened(dy.data), w64 = widened(w);
  std::vector<double> dr64 = widened(dr.data), dw64 = widened(dw), db64 = widened(db), term(static_cast<size_t>(D));
  set.norm_grad({&pool}, {kind, r.row(0), r.ld, with_w ? w.data() : nullptr, 1e-5f, dy.row(0), dy.ld, dr.row(0), dr.ld,
                          dw.data(), db.data(), T, D});
  dr.expect_gaps_untouched();
  const NormGradParamsOf<double> o{
      kind,    r64.data(), r.ld, with_w ? w64.data() : nullptr, 1e-5f, dy64.data(), dy.ld, dr64.data(), dr.ld, nullptr,
      nullptr, T,          D};
  std::vector<double> dw_errors(term.size()), dw_abs(term.size()), db_abs(term.size());
  for (int64_t t = 0; t < T; ++t) {
    reference::norm_grad_row(o, t, term.data());
    const auto n = static_cast<double>(D);
    double mean = 0, mean_abs = 0, variance = 0;
    for (int64_t d = 0; d < D; ++d) mean += o.r[t * r.ld + d] / n, mean_abs += std::fabs(o.r[t * r.ld + d]) / n;
    if (kind == NormKind::kRms) mean = mean_abs = 0;
    for (int64_t d = 0; d < D; ++d) variance += std::pow(o.r[t * r.ld + d] - mean, 2) / n;
    const double scale = 1 / std::sqrt(variance + static_cast<double>(o.eps));
    const auto v = [&](int64_t d) { return (o.r[t * r.ld + d] - mean) * scale; };
    const auto dv = [&](int64_t d) { return o.dy[t * dy.ld + d] * (with_w ? w64[static_cast<size_t>(d)] : 1); };
    const auto v_error = [&](int64_t d) { return tolerance::norm(D, std::fabs(v(d)), scale, mean_abs, 0); };
    tolerance::NormGradRow row{D, scale, 0, 0, 0, 0};
    for (int64_t d = 0; d < D; ++d) {
      if (kind == NormKind::kLayer) row.mean_abs_dv += std::fabs(dv(d)) / n;
      row.mean_abs_dv_v += std::fabs(dv(d) * v(d)) / n;
      row.mean_dv_v += dv(d) * v(d) / n;
      row.mean_abs_dv_error_v += std::fabs(dv(d)) * v_error(d) / n;
    }
    for (int64_t d = 0; d < D; ++d) {
      const auto i = static_cast<size_t>(d);
      const double want = o.dr[t * dr.ld + d];
      expect_near(dr.row(t)[d], want,
                  tolerance::norm_grad(row, std::fabs(dv(d)), kU * std::fabs(dv(d)), std::fabs(v(d)), v_error(d),
                                       std::fabs(want)),
                  "row " + std::to_string(t) + " column " + std::to_string(d));
      dw64[i] += term[i];
      db64[i] += o.dy[t * dy.ld + d];
      dw_errors[i] += std::fabs(o.dy[t * dy.ld + d]) * v_error(d);
      dw_abs[i] += std::fabs(term[i]);
      db_abs[i] += std::fabs(o.dy[t * dy.ld + d]);
    }
  }
  for (size_t i = 0; i < term.size(); ++i) {
    expect_near(dw[i], dw64[i], column_bound(dw_errors[i], dw_abs[i], T), "dw " + std::to_string(i));
    expect_near(db[i], db64[i], column_bound(0, db_abs[i], T), "db " + std::to_string(i));
  }
}

TEST_P(NormGrad, MatchesReference) {
  for (const int64_t D : {1, 3, 8, 16, 17, 64, 100, 130, 768}) {
    for (const NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
      expect_norm(*GetParam(), pool_, kind, 5, D, false);
      expect_norm(*GetParam(), pool_, kind, 5, D, true);
    }
  }
}

struct Gated {
  Gated(int64_t rows, int64_t width, int64_t groups)
      : T(rows),
        D(width),
        G(groups),
        y(Rows::random(T, D, 2, 1)),
        z(Rows::random(T, D, 1, 2, 2)),
        dout(Rows::random(T, D, 3, 3)),
        dy(Rows::random(T, D, 4, 4)),
        dz(Rows::random(T, D, 5, 5)),
        w(normals(D, 6)),
        dw(normals(D, 7)) {}
  GatedNormGradParams params(bool norm_first, int64_t t0, int64_t n) {
    return {{y.row(t0), y.ld, z.row(t0), z.ld, w.data(), 1e-5f, norm_first, nullptr, 0, n, D, G},
            dout.row(t0),
            dout.ld,
            dy.row(t0),
            dy.ld,
            dz.row(t0),
            dz.ld,
            dw.data()};
  }
  int64_t T, D, G;
  Rows y, z, dout, dy, dz;
  std::vector<float> w, dw;
};

void expect_gated(const KernelSet& set, ThreadPool& pool, int64_t D, int64_t G, bool norm_first) {
  SCOPED_TRACE(std::string(set.name) + " D " + std::to_string(D) + " G " + std::to_string(G) + " norm first " +
               std::to_string(norm_first));
  constexpr int64_t T = 4;
  Gated q(T, D, G);
  const std::vector<double> y = widened(q.y.data), z = widened(q.z.data), dout = widened(q.dout.data), w = widened(q.w);
  std::vector<double> dy = widened(q.dy.data), dz = widened(q.dz.data), dw = widened(q.dw), term(w.size());
  set.gated_norm_grad({&pool}, q.params(norm_first, 0, T));
  q.dy.expect_gaps_untouched();
  q.dz.expect_gaps_untouched();
  const GatedNormGradParamsOf<double> o{
      {y.data(), q.y.ld, z.data(), q.z.ld, w.data(), 1e-5f, norm_first, nullptr, 0, T, D, G},
      dout.data(),
      q.dout.ld,
      dy.data(),
      q.dy.ld,
      dz.data(),
      q.dz.ld,
      nullptr};
  std::vector<double> dw_errors(w.size()), dw_abs(w.size());
  const int64_t n = D / G;
  for (int64_t t = 0; t < T; ++t) {
    reference::gated_norm_grad_row(o, t, term.data());
    for (int64_t first = 0; first < D; first += n) {
      const auto Y = [&](int64_t d) { return y[static_cast<size_t>(t * q.y.ld + d)]; };
      const auto Z = [&](int64_t d) { return z[static_cast<size_t>(t * q.z.ld + d)]; };
      const auto W = [&](int64_t d) { return w[static_cast<size_t>(d)]; };
      const auto g = [&](int64_t d) { return dout[static_cast<size_t>(t * q.dout.ld + d)]; };
      const auto u = [&](int64_t d) { return norm_first ? Y(d) : Y(d) * reference::silu(Z(d)); };
      const auto dv = [&](int64_t d) { return g(d) * W(d) * (norm_first ? reference::silu(Z(d)) : 1); };
      double squares = 0;
      for (int64_t d = first; d < first + n; ++d) squares += u(d) * u(d);
      const double scale = 1 / std::sqrt(squares / static_cast<double>(n) + static_cast<double>(o.f.eps));
      const double relative = 7 * std::sqrt(static_cast<double>(n)) * kU / 2 + 20 * kU;  // of v, silu's 6 u included
      tolerance::NormGradRow row{n, scale, 0, 0, 0, 0};
      for (int64_t d = first; d < first + n; ++d) {
        const double v = u(d) * scale;
        row.mean_abs_dv_v += std::fabs(dv(d) * v) / static_cast<double>(n);
        row.mean_dv_v += dv(d) * v / static_cast<double>(n);
        row.mean_abs_dv_error_v += (relative + 9 * kU) * std::fabs(dv(d) * v) / static_cast<double>(n);
      }
      for (int64_t d = first; d < first + n; ++d) {
        const auto i = static_cast<size_t>(d);
        const std::string where = " row " + std::to_string(t) + " column " + std::to_string(d);
        const double v = u(d) * scale, want_y = o.dy[t * q.dy.ld + d], want_z = o.dz[t * q.dz.ld + d];
        const double silu = std::fabs(reference::silu(Z(d))), slope = std::fabs(reference::silu_derivative(Z(d)));
        const double du_error = tolerance::norm_grad(row, std::fabs(dv(d)), 9 * kU * std::fabs(dv(d)), std::fabs(v),
                                                     relative * std::fabs(v), 0);
        const double du = std::fabs(scale * (dv(d) - v * row.mean_dv_v));
        const double y_bound = norm_first ? du_error : (du_error + 9 * kU * du) * silu;
        const double z_bound =
            norm_first ? std::fabs(g(d) * v * W(d)) * (relative * slope + tolerance::silu_slope(Z(d)))
                       : std::fabs(Y(d)) * ((du_error + 3 * kU * du) * slope + du * tolerance::silu_slope(Z(d)));
        expect_near(q.dy.row(t)[d], want_y, y_bound + kU * std::fabs(want_y), "dy" + where);
        expect_near(q.dz.row(t)[d], want_z, z_bound + kU * std::fabs(want_z), "dz" + where);
        dw[i] += term[i];
        dw_errors[i] += (relative + 9 * kU) * std::fabs(term[i]);
        dw_abs[i] += std::fabs(term[i]);
      }
    }
  }
  for (size_t i = 0; i < w.size(); ++i) {
    expect_near(q.dw[i], dw[i], column_bound(dw_errors[i], dw_abs[i], T), "dw " + std::to_string(i));
  }
}

// Traps C2, C3: both orders of gate and norm, and the norm within each group.
TEST_P(NormGrad, TrapC3_GatedMatchesReferenceForEveryGrouping) {
  for (const int64_t D : {1, 24, 60, 120, 384}) {
    for (const int64_t G : {1, 2, 3, 8, 12}) {
      if (D % G != 0) continue;
      expect_gated(*GetParam(), pool_, D, G, false);
      expect_gated(*GetParam(), pool_, D, G, true);
    }
  }
}

// Rows are summed in order from the stored value: calls of any lengths, and threads, do not show.
TEST_P(NormGrad, TrapB9_CallsAndThreadsDoNotShow) {
  constexpr int64_t T = 700, D = 300;
  const Rows r = Rows::random(T, D, 0, 1), dy = Rows::random(T, D, 0, 2);
  const std::vector<float> w = normals(D, 3), stored = normals(D, 4);
  const auto run = [&](ThreadPool& pool, const std::vector<int64_t>& lengths) {
    std::vector<float> out(2 * D);
    std::copy_n(stored.begin(), D, out.begin());
    std::copy_n(stored.begin(), D, out.begin() + D);
    Rows dr = Rows::random(T, D, 0, 5);
    int64_t t = 0;
    for (const int64_t n : lengths) {
      GetParam()->norm_grad({&pool}, {NormKind::kLayer, r.row(t), D, w.data(), 1e-5f, dy.row(t), D, dr.row(t), D,
                                      out.data(), out.data() + D, n, D});
      t += n;
    }
    out.insert(out.end(), dr.data.begin(), dr.data.end());
    Gated q(T, D, 2);
    t = 0;
    for (const int64_t n : lengths) {
      GetParam()->gated_norm_grad({&pool}, q.params(false, t, n));
      t += n;
    }
    out.insert(out.end(), q.dw.begin(), q.dw.end());
    out.insert(out.end(), q.dz.data.begin(), q.dz.data.end());
    return out;
  };
  const std::vector<float> want = run(pool_, {T});
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    EXPECT_EQ(run(pool, {1, 0, 449, 3, 247}), want) << threads;
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, NormGrad, testing::ValuesIn(cpu_kernel_sets()), set_name);

}  // namespace
}  // namespace krait
