#include "krait/infer/verify.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "krait/core/error.h"
#include "krait/core/rng.h"
#include "krait/core/thread_pool.h"
#include "krait/infer/engine.h"

namespace krait {
namespace {

using Ids = std::vector<int32_t>;

// Logits of all tokens [n, V_pad] and the state after the last: what one way of computing a sequence gives.
struct Outcome {
  Tensor logits;
  State state;
};

// Lengths of the sequences of a batch.
constexpr int64_t kLengths[] = {37, 0, 1, 16, 2, 64, 5, 1, 0, 33, 3, 8, 100, 0, 1, 7, 4};
constexpr int64_t kMostSequences = std::size(kLengths);
constexpr int64_t kSlots = kMostSequences + 1;

// What is different between two outcomes, from token `first` of the wanted one on; empty if nothing is.
std::string difference(const Tensor& logits, const Outcome& want, int64_t first = 0) {
  const int64_t V = want.logits.dim(1);
  for (int64_t t = 0; t < logits.dim(0); ++t) {
    const auto bytes = static_cast<size_t>(V) * sizeof(float);
    if (std::memcmp(logits.f32() + t * V, want.logits.f32() + (first + t) * V, bytes) != 0) {
      return fmt::format("logits after token {}", first + t);
    }
  }
  return {};
}
std::string difference(const State& state, const State& want) {
  const StateDiff d = diff(state, want);
  for (const TensorDiff& t : d.tensors) {
    if (!t.equal) return fmt::format("final state, {} (max |difference| {:.3g})", t.name, t.max_abs);
  }
  return {};
}

class Verifier {
 public:
  Verifier(const Model& model, const VerifyOptions& options)
      : model_(model), options_(options), pool_(model, kSlots), rng_(options.seed, 1) {
    ids_ = random_ids(options.length, 0);
    want_ = alone(ids_);
    for (int64_t i = 0; i < kMostSequences; ++i) {
      prompts_.push_back(random_ids(kLengths[i], static_cast<uint64_t>(i) + 1));
      wants_.push_back(alone(prompts_.back()));
    }
  }

  std::vector<VerifyRow> run() {
    plan();
    int64_t total = 0, done = 0;
    for (const Check& c : checks_) total += static_cast<int64_t>(c.cases.size());
    std::vector<VerifyRow> rows;
    for (const Check& c : checks_) {
      VerifyRow& row = rows.emplace_back(VerifyRow{c.what, static_cast<int64_t>(c.cases.size()), 0, {}});
      for (const int64_t x : c.cases) {
        const std::string wrong = c.run(x);
        if (!wrong.empty() && row.different++ == 0) row.first = fmt::format("{} {}: {}", c.unit, x, wrong);
        if (options_.progress) options_.progress(++done, total);
      }
    }
    return rows;
  }

 private:
  struct Check {
    std::string what;
    const char* unit;
    std::vector<int64_t> cases;
    std::function<std::string(int64_t)> run;
  };

  void plan() {
    const int64_t L = options_.length, few = options_.quick ? 5 : 20;
    add(fmt::format("prompt of {} split in two", L), "at", options_.quick ? sampled(L) : range(0, L),
        [this](int64_t at) { return split(at); });
    add("one token at a time", "chunk", {1}, [this](int64_t n) { return chunks(n); });
    add("chunks of 3, 17, 64, 100", "chunk", {3, 17, 64, 100}, [this](int64_t n) { return chunks(n); });
    add("batches of 1 to 17, lengths 0 to 100", "batch", options_.quick ? Cases{1, 2, 7, 17} : range(1, kMostSequences),
        [this](int64_t n) { return batch(n); });
    add("packed with strangers", "place", range(0, 4), [this](int64_t place) { return packed(place); });
    Cases threads(options_.threads.begin(), options_.threads.end());
    add(fmt::format("threads {}", fmt::join(options_.threads, ", ")), "threads", threads,
        [this](int64_t n) { return on_threads(static_cast<int>(n)); });
    add("saved to a file and resumed", "at", random_points(few), [this](int64_t at) { return through_file(at); });
    add("forked, marked and rewound", "at", random_points(few / 4), [this](int64_t at) { return forked(at); });
    add("sampled: n forks, in a batch, resumed", "seed", range(1, few / 5),
        [this](int64_t seed) { return sampled_text(seed); });
  }

  using Cases = std::vector<int64_t>;
  void add(std::string what, const char* unit, Cases cases, std::function<std::string(int64_t)> body) {
    checks_.push_back({std::move(what), unit, std::move(cases), std::move(body)});
  }
  static Cases range(int64_t first, int64_t last) {
    Cases c(static_cast<size_t>(last - first + 1));
    std::iota(c.begin(), c.end(), first);
    return c;
  }
  // Ends, the first few (convolution windows), and around powers of two (chunks).
  static Cases sampled(int64_t length) {
    Cases c;
    for (const int64_t at : {0, 1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 257}) {
      if (at < length) c.push_back(at);
    }
    c.push_back(length);
    return c;
  }
  Cases random_points(int64_t n) {
    Cases c;
    for (int64_t i = 0; i < n; ++i)
      c.push_back(static_cast<int64_t>(rng_.below(static_cast<uint64_t>(options_.length) + 1)));
    return c;
  }

  Ids random_ids(int64_t n, uint64_t stream) const {
    return random_integers(n, model_.vocab_size(), Rng(options_.seed, 100 + stream));
  }

  // Reads ids in one pass and returns the logits of all of them.
  Tensor read(const Model& m, std::span<const int32_t> ids, int32_t slot, SlotStore& states) const {
    const std::vector<int64_t> rows = ids.empty() ? Cases{} : range(0, static_cast<int64_t>(ids.size()) - 1);
    return m.forward(ids, SeqSpans::one(static_cast<int64_t>(ids.size()), slot), states, rows);
  }
  Tensor read(std::span<const int32_t> ids, int32_t slot) { return read(model_, ids, slot, pool_.states()); }
  // The mixers' tensors alone: the head is not what forward() computes.
  State tensors(int64_t slot) { return snapshot(model_, pool_.states(), slot, {}); }

  Outcome alone(const Ids& ids) {
    model_.reset_state(pool_.states(), 0);
    Tensor logits = read(ids, 0);
    return {std::move(logits), tensors(0)};
  }

  std::string split(int64_t at) {
    model_.reset_state(pool_.states(), 0);
    const auto n = static_cast<size_t>(at);
    std::string wrong = difference(read(std::span(ids_).first(n), 0), want_);
    if (wrong.empty()) wrong = difference(read(std::span(ids_).subspan(n), 0), want_, at);
    return wrong.empty() ? difference(tensors(0), want_.state) : wrong;
  }

  std::string chunks(int64_t size) {
    model_.reset_state(pool_.states(), 0);
    std::string wrong;
    score(
        model_, pool_.states(), 0, ids_,
        [&](int64_t first, const Tensor& logits) {
          wrong = difference(logits, want_, first);
          return wrong.empty();
        },
        size);
    return wrong.empty() ? difference(tensors(0), want_.state) : wrong;
  }

  // The first n prompts in one pass, in slots that run the other way.
  std::string batch(int64_t n) {
    Cases members = range(0, n - 1);
    std::vector<const Ids*> ids;
    std::vector<const Outcome*> want;
    for (const int64_t i : members) {
      ids.push_back(&prompts_[static_cast<size_t>(i)]);
      want.push_back(&wants_[static_cast<size_t>(i)]);
    }
    return together(ids, want);
  }

  // The long prompt at that place among four others.
  std::string packed(int64_t place) {
    std::vector<const Ids*> ids;
    std::vector<const Outcome*> want;
    for (size_t i = 0; i < 4; ++i) {
      ids.push_back(&prompts_[i]);
      want.push_back(&wants_[i]);
    }
    ids.insert(ids.begin() + place, &ids_);
    want.insert(want.begin() + place, &want_);
    return together(ids, want);
  }

  std::string together(const std::vector<const Ids*>& sequences, const std::vector<const Outcome*>& want) {
    Ids ids;
    SeqSpans spans;
    for (size_t i = 0; i < sequences.size(); ++i) {
      const auto slot = static_cast<int32_t>(kSlots - 1 - static_cast<int64_t>(i));
      model_.reset_state(pool_.states(), slot);
      ids.insert(ids.end(), sequences[i]->begin(), sequences[i]->end());
      spans.add(static_cast<int64_t>(sequences[i]->size()), slot);
    }
    model_.reset_state(pool_.states(), 0);
    const State bystander = tensors(0);
    const Cases rows = ids.empty() ? Cases{} : range(0, static_cast<int64_t>(ids.size()) - 1);
    const Tensor logits = model_.forward(ids, spans, pool_.states(), rows);
    for (size_t i = 0; i < sequences.size(); ++i) {
      const int64_t first = spans.offset[i], n = spans.length(static_cast<int64_t>(i));
      std::string wrong = difference(logits.narrow(0, first, n), *want[i]);
      if (wrong.empty()) wrong = difference(tensors(spans.slot[i]), want[i]->state);
      if (!wrong.empty()) return fmt::format("sequence {}, {}", i, wrong);
    }
    const std::string wrong = difference(tensors(0), bystander);
    return wrong.empty() ? wrong : "a slot that took no part: " + wrong;
  }

  std::string on_threads(int n) {
    ThreadPool threads(n);
    Runtime runtime = model_.runtime();
    runtime.pool = &threads;
    const Model other(model_.spec(), model_.params(), runtime, model_.adapters(), model_.default_adapter());
    model_.reset_state(pool_.states(), 0);
    const std::string wrong = difference(read(other, ids_, 0, pool_.states()), want_);
    return wrong.empty() ? difference(tensors(0), want_.state) : wrong;
  }

  struct TemporaryFile {
    std::filesystem::path path;
    ~TemporaryFile() {
      std::error_code ignored;
      std::filesystem::remove(path, ignored);
    }
  };
  State reread(const State& s) const {
    const TemporaryFile file{options_.folder / fmt::format("krait-verify-{}.state", getpid())};
    write_state(file.path, s);
    return read_state(file.path);
  }

  std::string through_file(int64_t at) {
    const auto n = static_cast<size_t>(at);
    State saved;
    {
      Sequence s(pool_);
      s.read(std::span(ids_).first(n));
      saved = s.state();
    }
    const State loaded = reread(saved);
    if (!(loaded == saved)) return "the state that was read back";
    const Sequence s(pool_, loaded);
    const std::string wrong = difference(read(std::span(ids_).subspan(n), s.slot()), want_, at);
    return wrong.empty() ? difference(tensors(s.slot()), want_.state) : wrong;
  }

  // Branches that go on with other prompts, and the trunk itself after a detour.
  std::string forked(int64_t at) {
    const auto prefix = std::span(ids_).first(static_cast<size_t>(at));
    Sequence trunk(pool_);
    trunk.read(prefix);
    trunk.mark();
    for (const size_t i : {0u, 3u, 5u}) {
      Sequence branch = trunk.fork(), straight(pool_);
      branch.read(prompts_[i]);
      Ids all(prefix.begin(), prefix.end());
      all.insert(all.end(), prompts_[i].begin(), prompts_[i].end());
      straight.read(all);
      const std::string wrong = difference(branch.state(), straight.state());
      if (!wrong.empty()) return "a fork's " + wrong;
    }
    trunk.read(prompts_[5]);
    trunk.rewind(at);
    const std::string wrong = difference(read(std::span(ids_).subspan(prefix.size()), trunk.slot()), want_, at);
    return wrong.empty() ? difference(tensors(trunk.slot()), want_.state) : "after a rewind: " + wrong;
  }

  Request sampled_request(int64_t seed, size_t prompt) const {
    Request q;
    q.prompt = prompts_[prompt];
    q.max_new_tokens = 24;
    q.sampler.temperature = 1;
    q.sampler.seed = static_cast<uint64_t>(seed);
    q.keep_state = true;
    return q;
  }

  std::string sampled_text(int64_t seed) {
    EngineOptions few;
    few.max_sequences = 3;
    few.max_batch_tokens = 11;
    Engine engine(model_, few);
    Request forks = sampled_request(seed, 0);
    forks.n = 4;
    const std::vector<Result> busy = engine.run({forks, sampled_request(seed, 3), sampled_request(seed, 2)});
    for (const Result& r : busy)
      if (r.error) std::rethrow_exception(r.error);
    for (uint64_t i = 0; i < 4; ++i) {
      Request one = sampled_request(seed, 0);
      one.sampler.stream = i;
      if (engine.run(one).generations[0].ids != busy[0].generations[i].ids) return fmt::format("tokens of fork {}", i);
    }
    Request half = sampled_request(seed, 3);
    half.max_new_tokens = 11;
    Generation text = engine.run(half).generations[0];
    Request rest = sampled_request(seed, 3);
    rest.prompt.clear();
    rest.max_new_tokens = 13;
    rest.start = std::make_shared<State>(reread(*text.state));
    const Generation tail = engine.run(rest).generations[0];
    text.ids.insert(text.ids.end(), tail.ids.begin(), tail.ids.end());
    if (text.ids != busy[1].generations[0].ids) return "tokens of a resumed run";
    return *tail.state == *busy[1].generations[0].state ? "" : "state of a resumed run";
  }

  const Model& model_;
  const VerifyOptions& options_;
  StatePool pool_;
  Rng rng_;
  Ids ids_;
  Outcome want_;
  std::vector<Ids> prompts_;
  std::vector<Outcome> wants_;
  std::vector<Check> checks_;
};

}  // namespace

std::vector<VerifyRow> verify(const Model& model, const VerifyOptions& options) {
  if (options.length < 8) fail_usage(fmt::format("[verify] a prompt of {} tokens, wants at least 8", options.length));
  return Verifier(model, options).run();
}

}  // namespace krait
