#include "krait/infer/request_check.h"

#include <fmt/format.h>

#include "krait/core/error.h"

namespace krait {
namespace {

void require(bool ok, const std::string& rule) {
  if (!ok) fail_usage("[generate] " + rule);
}

void check_prompt(const Model& model, const std::vector<int32_t>& prompt, const State* start, int32_t adapter) {
  for (size_t i = 0; i < prompt.size(); ++i) {
    if (prompt[i] < 0 || prompt[i] >= model.vocab_size()) {
      fail_data(
          fmt::format("[generate] prompt token {} is id {}, the vocabulary has {}", i, prompt[i], model.vocab_size()));
    }
  }
  if (start != nullptr) check_fits(model, *start, adapter);
  require(
      !prompt.empty() || (start != nullptr && start->position() > 0),
      "the prompt is empty and there is no state to go on from: begin with the beginning-of-text token, or any other");
}

void check_stop_ids(const Model& model, const std::vector<int32_t>& ids) {
  for (const int32_t id : ids) {
    require(id >= 0 && id < model.vocab_size(),
            fmt::format("stop id {}, the vocabulary has {}", id, model.vocab_size()));
  }
}

void check_marks(const Request& q) {
  int64_t last = 0;
  for (const int64_t m : q.marks) {
    require(m > last && m <= static_cast<int64_t>(q.prompt.size()),
            fmt::format("a mark at {} behind one at {}, in a prompt of {} tokens", m, last, q.prompt.size()));
    last = m;
  }
  require(q.marks.empty() || q.on_mark, "there are marks, but no on_mark to hand the states to");
}

}  // namespace

void check_request(const Model& model, const Request& q, int64_t vocab) {
  require(q.max_new_tokens >= 0, fmt::format("max_new_tokens is {}", q.max_new_tokens));
  require(q.n >= 1, fmt::format("n is {}, wants >= 1", q.n));
  require(q.n == 1 || q.max_new_tokens > 0, fmt::format("n is {}, but no token is to be generated", q.n));
  require(q.n == 1 || q.sampler.temperature > 0, fmt::format("n is {}, but all would be equal at temperature 0", q.n));
  require(!q.logprobs || (*q.logprobs >= 0 && *q.logprobs <= vocab),
          fmt::format("log probabilities of {} tokens, wants 0 to {}", q.logprobs.value_or(0), vocab));
  validate(q.sampler, vocab);
  check_stop_ids(model, q.stop_ids);
  const int32_t adapter = q.adapter.value_or(model.default_adapter());
  require(adapter >= -1 && adapter < static_cast<int64_t>(model.adapters().size()),
          fmt::format("adapter {}, the model has {}", adapter, model.adapters().size()));
  check_prompt(model, q.prompt, q.start.get(), adapter);
  check_marks(q);
}

void check_request(const Model& model, const BeamRequest& q, int64_t vocab) {
  require(vocab >= 1 && vocab <= model.vocab_size(),
          fmt::format("{} ids may be chosen, the model has {}", vocab, model.vocab_size()));
  require(q.max_new_tokens >= 1, fmt::format("max_new_tokens is {}, beam search wants >= 1", q.max_new_tokens));
  require(q.beams >= 1, fmt::format("{} beams, wants >= 1", q.beams));
  require(q.sampler.temperature == 0,
          fmt::format("temperature is {}, beam search draws nothing", q.sampler.temperature));
  require(!q.logprobs || (*q.logprobs >= 0 && *q.logprobs <= vocab),
          fmt::format("log probabilities of {} tokens, wants 0 to {}", q.logprobs.value_or(0), vocab));
  validate(q.sampler, vocab);
  require(q.n_best >= 1 && q.n_best <= q.beams, fmt::format("{} best of {} beams", q.n_best, q.beams));
  require(q.length_penalty >= -100 && q.length_penalty <= 100,
          fmt::format("length penalty is {}, wants ±100", q.length_penalty));
  check_stop_ids(model, q.stop_ids);
  require(!q.early_stop || !q.stop_ids.empty() || q.ends, "early stop has no effect without stop ids");
  check_prompt(model, q.prompt, q.start.get(), model.default_adapter());
}

}  // namespace krait
