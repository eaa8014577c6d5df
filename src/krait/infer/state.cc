#include "krait/infer/state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "krait/core/error.h"
#include "krait/core/thread_pool.h"

namespace krait {
namespace {

bool same_bits(const Tensor& a, const Tensor& b) {
  if (a.defined() != b.defined()) return false;
  if (!a.defined()) return true;
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.bytes(), b.bytes(), static_cast<size_t>(a.nbytes())) == 0;
}

std::vector<double> to_f64(const Tensor& t) {
  std::vector<double> out(static_cast<size_t>(t.numel()));
  if (t.dtype() == DType::kI64) {
    std::transform(t.data<int64_t>(), t.data<int64_t>() + t.numel(), out.begin(),
                   [](int64_t v) { return static_cast<double>(v); });
  } else if (t.dtype() == DType::kF64) {
    std::copy_n(t.data<double>(), t.numel(), out.begin());
  } else {
    std::copy_n(to_f32(t).f32(), t.numel(), out.begin());
  }
  return out;
}

TensorDiff compare(std::string name, const Tensor& a, const Tensor& b) {
  TensorDiff d{std::move(name), a.shape()};
  d.equal = same_bits(a, b);
  d.phase = a.dtype() == DType::kI32;
  if (d.equal) return d;
  if (d.phase) {
    const PhaseDiff p = diff_phases(a, b);
    d.max_abs = p.max_abs;
    d.rms = p.rms;
    return d;
  }
  const std::vector<double> x = to_f64(a), y = to_f64(b);
  double difference = 0, reference = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double error = std::abs(x[i] - y[i]);
    d.max_abs = error > d.max_abs || std::isnan(error) ? error : d.max_abs;
    difference += error * error;
    reference += y[i] * y[i];
  }
  if (difference != 0) {  // NaN too
    d.rms = reference > 0 ? std::sqrt(difference / reference) : std::numeric_limits<double>::infinity();
  }
  return d;
}

// The first tensor in which two lists of specs differ; empty if there is none.
std::string first_difference(const std::vector<StateSpec>& have, const std::vector<StateSpec>& want) {
  if (have.size() != want.size()) return fmt::format("{} sub-blocks, expected {}", have.size(), want.size());
  for (size_t b = 0; b < have.size(); ++b) {
    if (have[b].size() != want[b].size()) {
      return fmt::format("sub-block {} has {} tensors, expected {}", b, have[b].size(), want[b].size());
    }
    for (size_t t = 0; t < have[b].size(); ++t) {
      const StateTensorSpec &h = have[b][t], &w = want[b][t];
      if (!(h == w)) {
        return fmt::format("tensor {}.{} is {} {}, expected {}.{} {} {}", b, h.name, name_of(h.dtype), h.shape.str(), b,
                           w.name, name_of(w.dtype), w.shape.str());
      }
    }
  }
  return {};
}

}  // namespace

PhaseDiff diff_phases(const Tensor& a, const Tensor& b) {
  PhaseDiff d;
  double sum = 0;
  for (int64_t i = 0; i < a.numel(); ++i) {
    const auto ticks = static_cast<uint32_t>(a.data<int32_t>()[i]) - static_cast<uint32_t>(b.data<int32_t>()[i]);
    const double turns = 0x1p-32 * static_cast<int32_t>(ticks);
    d.max_abs = std::max(d.max_abs, std::abs(turns));
    sum += turns * turns;
  }
  if (a.numel() > 0) d.rms = std::sqrt(sum / static_cast<double>(a.numel()));
  return d;
}

int64_t State::nbytes() const {
  return SlotStore::bytes_per_slot(specs) + (head.last_logits.defined() ? head.last_logits.nbytes() : 0);
}

State snapshot(const Model& model, const SlotStore& states, int64_t slot, const SequenceHead& head, int32_t adapter) {
  State s{model.fingerprint(adapter), model.spec().architecture, head, states.specs(), {}};
  Tensor& logits = s.head.last_logits;
  if (logits.defined() && logits.buffer_numel() != logits.numel()) logits = logits.clone();  // of a whole pass
  std::vector<std::pair<Tensor, Tensor>> copies;                                             // to, from
  for (size_t b = 0; b < s.specs.size(); ++b) {
    StateView& view = s.blocks.emplace_back();
    for (size_t t = 0; t < s.specs[b].size(); ++t) {
      const Tensor from = states.at(b, t, slot);
      copies.emplace_back(view.emplace_back(Tensor::empty(from.shape(), from.dtype())), from);
    }
  }
  model.runtime().pool->parallel_for(std::ssize(copies), [&](int64_t i) {  // megabytes, while all other sequences wait
    auto& [to, from] = copies[static_cast<size_t>(i)];
    std::memcpy(to.bytes(), from.bytes(), static_cast<size_t>(to.nbytes()));
  });
  return s;
}

void check_fits(const Model& model, const State& s, int32_t adapter) {
  if (s.model_fingerprint != model.fingerprint(adapter)) {
    fail_data(fmt::format(
        "[state] the state belongs to another model, or to other weights, --lora or --compute of it: its fingerprint "
        "is {:016x} ({}), the model's is {:016x} ({})",
        s.model_fingerprint, s.architecture, model.fingerprint(adapter), model.spec().architecture));
  }
  const std::string wrong = first_difference(s.specs, model.state_specs());
  if (!wrong.empty()) fail_data("[state] the state does not fit the model: " + wrong);
  const bool read_something = s.position() > 0;
  const Tensor& logits = s.head.last_logits;
  if (read_something != logits.defined() || (logits.defined() && logits.numel() != model.padded_vocab_size())) {
    fail_data(fmt::format("[state] {} logits at position {}, the model gives {}", logits.defined() ? logits.numel() : 0,
                          s.position(), model.padded_vocab_size()));
  }
}

void check_foreign(const Model& model, const State& s, int32_t adapter) {
  check_fits(model, s, adapter);
  for (const auto& [id, n] : s.head.history.counts()) {
    if (id < 0 || id >= model.vocab_size()) {
      fail_data(fmt::format("[state] token {} was read, the vocabulary has {}", id, model.vocab_size()));
    }
  }
  const auto require_finite = [](const std::string& name, const Tensor& t) {
    const bool of_f32 = t.defined() && t.dtype() == DType::kF32;
    if (of_f32 && !std::all_of(t.f32(), t.f32() + t.numel(), [](float x) { return std::isfinite(x); })) {
      fail_data(fmt::format("[state] {} holds a number that is not finite", name));
    }
  };
  for (size_t b = 0; b < s.specs.size(); ++b) {
    for (size_t t = 0; t < s.specs[b].size(); ++t) {
      require_finite(fmt::format("tensor {}.{}", b, s.specs[b][t].name), s.blocks[b][t]);
    }
  }
  require_finite("the row of logits", s.head.last_logits);
}

void restore(const Model& model, const State& s, SlotStore& states, int64_t slot, int32_t adapter) {
  check_fits(model, s, adapter);
  for (size_t b = 0; b < s.specs.size(); ++b) {
    for (size_t t = 0; t < s.specs[b].size(); ++t) {
      Tensor to = states.at(b, t, slot);
      std::memcpy(to.bytes(), s.blocks[b][t].bytes(), static_cast<size_t>(to.nbytes()));
    }
  }
}

bool operator==(const State& a, const State& b) {
  return first_difference(a.specs, b.specs).empty() && diff(a, b).equal();
}

bool StateDiff::equal() const {
  return header.empty() && std::ranges::all_of(tensors, [](const TensorDiff& t) { return t.equal; });
}

StateDiff diff(const State& a, const State& b) {
  const std::string wrong = first_difference(a.specs, b.specs);
  if (!wrong.empty()) fail_data("[state] the two states have different tensors: " + wrong);
  StateDiff d;
  const auto field = [&](const char* name, bool same) {
    if (!same) d.header.emplace_back(name);
  };
  const SequenceHead &x = a.head, &y = b.head;
  field("model_fingerprint", a.model_fingerprint == b.model_fingerprint);
  field("architecture", a.architecture == b.architecture);
  field("position", a.position() == b.position());
  field("tokens", x.history == y.history);
  field("seed", x.rng.seed == y.rng.seed);
  field("stream", x.rng.stream == y.rng.stream);
  field("draws", x.rng.counter == y.rng.counter);
  for (size_t i = 0; i < a.specs.size(); ++i) {
    for (size_t t = 0; t < a.specs[i].size(); ++t) {
      d.tensors.push_back(compare(fmt::format("{}.{}", i, a.specs[i][t].name), a.blocks[i][t], b.blocks[i][t]));
    }
  }
  const Tensor &u = x.last_logits, &v = y.last_logits;
  if (u.defined() && v.defined() && u.shape() == v.shape()) {
    d.tensors.push_back(compare("logits", u, v));
  } else {
    field("logits", !u.defined() && !v.defined());
  }
  return d;
}

}  // namespace krait
