#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "krait/core/error.h"
#include "krait/infer/engine.h"
#include "krait/infer/request_check.h"

namespace krait {
namespace {

struct Beam {
  Sequence sequence;
  std::vector<int32_t> ids;  // all read
  double logprob = 0;
  std::vector<Logprobs> logprobs;
};

struct Candidate {
  size_t beam;
  int32_t id;
  double logprob;  // of the whole hypothesis
};

class BeamSearch {
 public:
  BeamSearch(const Model& model, const BeamRequest& request, int64_t vocab, const std::atomic<bool>* cancel)
      : model_(model),
        request_(request),
        vocab_(vocab),
        cancel_(cancel),
        sampler_(request.sampler, vocab),
        pool_(model, 2 * request.beams) {}

  std::vector<Hypothesis> run() {
    live_.push_back({request_.start ? Sequence(pool_, *request_.start) : Sequence(pool_), {}, 0, {}});
    for (std::span<const int32_t> rest = request_.prompt; !rest.empty();) {
      if (cancelled()) return {};
      const auto part = rest.first(std::min(rest.size(), static_cast<size_t>(kPrefillChunk)));
      live_[0].sequence.read(part);
      rest = rest.subspan(part.size());
    }
    for (int64_t length = 1; !live_.empty(); ++length) {
      if (cancelled()) {
        end_running();
        break;
      }
      step(length);
    }
    if (static_cast<int64_t>(ended_.size()) > request_.n_best) ended_.resize(static_cast<size_t>(request_.n_best));
    return std::move(ended_);
  }

 private:
  bool cancelled() const { return cancel_ != nullptr && cancel_->load(); }

  double score(double logprob, int64_t length) const {
    return logprob / std::pow(static_cast<double>(length), request_.length_penalty);
  }

  bool is_stop(int32_t id) const { return std::ranges::find(request_.stop_ids, id) != request_.stop_ids.end(); }

  // Whether a continuation ends its hypothesis otherwise than by a stop id or the length.
  bool ends(const Candidate& c) const {
    if (!request_.ends) return false;
    std::vector<int32_t> ids = live_[c.beam].ids;
    ids.push_back(c.id);
    return request_.ends(ids);
  }

  // Continuations of all beams, likeliest first; more than enough, so that the stop ids among them leave `beams`
  // others. (Texts that end otherwise may leave fewer, which grow to as many again.)
  std::vector<Candidate> candidates() const {
    std::vector<Candidate> all;
    const auto wanted = (request_.ends ? 2 : 1) * request_.beams + static_cast<int64_t>(request_.stop_ids.size());
    for (size_t b = 0; b < live_.size(); ++b) {
      const std::vector<float> logits = sampler_.changed(raw_logits(b), live_[b].sequence.head().history);
      for (const TokenLogprob& t : logprobs(logits, 0, wanted).top) {
        if (std::isfinite(t.logprob)) all.push_back({b, t.id, live_[b].logprob + t.logprob});
      }
    }
    std::ranges::stable_sort(all, [](const Candidate& x, const Candidate& y) { return x.logprob > y.logprob; });
    return all;
  }

  std::span<const float> raw_logits(size_t beam) const {
    return {live_[beam].sequence.head().last_logits.f32(), static_cast<size_t>(vocab_)};
  }

  // Those of the parent and of the token that is added, if they are wanted.
  std::vector<Logprobs> logprobs_with(const Candidate& c) const {
    std::vector<Logprobs> all = live_[c.beam].logprobs;
    if (request_.logprobs) all.push_back(logprobs(raw_logits(c.beam), c.id, *request_.logprobs));
    return all;
  }

  // Chooses the `length`-th token of every beam.
  void step(int64_t length) {
    std::vector<Candidate> next;
    for (const Candidate& c : candidates()) {
      if (static_cast<int64_t>(next.size()) == request_.beams) break;
      if (is_stop(c.id) || length == request_.max_new_tokens || ends(c)) {
        add_ended(c, length);
        if (length == request_.max_new_tokens && !is_stop(c.id)) next.push_back(c);  // counts as one of the beams
      } else {
        next.push_back(c);
      }
    }
    if (length == request_.max_new_tokens || (!next.empty() && settled(next[0].logprob, length))) next.clear();
    move_on(next);
  }

  // Whether no running hypothesis can get among the ended ones any more; `best` is the largest Σ log p of those.
  bool settled(double best, int64_t length) const {
    if (static_cast<int64_t>(ended_.size()) < request_.beams) return false;
    if (request_.early_stop) return true;
    // Σ log p only falls; dividing it by length^penalty raises it most at the greatest length, or lowers it least at
    // the next.
    const int64_t kindest = request_.length_penalty > 0 ? request_.max_new_tokens : length + 1;
    return score(best, kindest) <= ended_.back().score;
  }

  void add_ended(const Candidate& c, int64_t length) {
    const Beam& beam = live_[c.beam];
    Hypothesis h;
    h.ids = beam.ids;
    h.logprob = c.logprob;
    h.score = score(c.logprob, length);
    if (!ranks(h)) return;
    if (is_stop(c.id)) {
      h.stop_id = c.id;
      h.logprobs = beam.logprobs;
    } else {
      h.ids.push_back(c.id);
      h.logprobs = logprobs_with(c);
    }
    if (request_.keep_state) {
      Sequence end = beam.sequence.fork();
      if (!h.stop_id) end.read({&c.id, 1});
      h.state = std::make_shared<State>(end.state());
    }
    insert(std::move(h));
  }

  // The running ones as they stand, because no time is left for them.
  void end_running() {
    for (const Beam& b : live_) {
      Hypothesis h;
      h.ids = b.ids;
      h.logprob = b.logprob;
      h.score = score(b.logprob, static_cast<int64_t>(b.ids.size()));
      if (b.ids.empty() || !ranks(h)) continue;
      h.cancelled = true;
      h.logprobs = b.logprobs;
      if (request_.keep_state) h.state = std::make_shared<State>(b.sequence.state());
      insert(std::move(h));
    }
  }

  // Whether it is among the best `beams` so far.
  bool ranks(const Hypothesis& h) const {
    return static_cast<int64_t>(ended_.size()) < request_.beams || h.score > ended_.back().score;
  }
  void insert(Hypothesis h) {
    ended_.insert(std::ranges::upper_bound(ended_, h.score, std::greater<>(), &Hypothesis::score), std::move(h));
    if (static_cast<int64_t>(ended_.size()) > request_.beams) ended_.pop_back();
  }

  // Forks the parents and reads one token in each child, all in one pass.
  void move_on(const std::vector<Candidate>& next) {
    std::vector<Beam> children;
    for (const Candidate& c : next) {
      Beam& child =
          children.emplace_back(Beam{live_[c.beam].sequence.fork(), live_[c.beam].ids, c.logprob, logprobs_with(c)});
      child.ids.push_back(c.id);
    }
    live_ = std::move(children);
    if (live_.empty()) return;
    std::vector<int32_t> ids;
    std::vector<int64_t> rows;
    SeqSpans spans;
    for (const Beam& b : live_) {
      rows.push_back(static_cast<int64_t>(ids.size()));
      ids.push_back(b.ids.back());
      spans.add(1, b.sequence.slot());
    }
    const Tensor logits = model_.forward(ids, spans, pool_.states(), rows);
    for (size_t b = 0; b < live_.size(); ++b) {
      const Tensor row = logits.narrow(0, static_cast<int64_t>(b), 1).reshape({model_.padded_vocab_size()});
      live_[b].sequence.advance({&ids[b], 1}, row);
    }
  }

  const Model& model_;
  const BeamRequest& request_;
  int64_t vocab_;
  const std::atomic<bool>* cancel_;
  Sampler sampler_;
  StatePool pool_;
  std::vector<Beam> live_;
  std::vector<Hypothesis> ended_;  // best first, at most `beams`
};

}  // namespace

std::vector<Hypothesis> beam_search(const Model& model, const BeamRequest& request, int64_t vocab,
                                    const std::atomic<bool>* cancel) {
  if (vocab == 0) vocab = model.vocab_size();
  check_request(model, request, vocab);
  return BeamSearch(model, request, vocab, cancel).run();
}

}  // namespace krait
