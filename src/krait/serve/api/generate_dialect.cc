// /generate: Krait's own endpoint.
#include "krait/serve/api/dialect.h"

namespace krait::serve {
namespace {

using nlohmann::json;

class GenerateDialect : public Dialect {
 public:
  explicit GenerateDialect(const Asked& asked) : model_(asked.model) {}

  bool ends_with_done_mark() const override { return false; }

  void delta(const Delta& d, const Emit& emit) override {
    if (!d.text.empty()) emit("", piece_.with(d.text));
  }

  void done(const Answer& a, const Emit& emit) override {
    if (!a.choices[0].last_text.empty()) emit("", piece_.with(a.choices[0].last_text));
    emit("done", dump(whole(a)));
  }

  json whole(const Answer& a) override {
    const auto tokens = static_cast<double>(a.usage.completion_tokens);
    json timing = timing_json(a.timing);
    return {{"text", a.choices[0].text},
            {"model", model_},
            {"tokens_generated", a.usage.completion_tokens},
            {"latency_ms", a.timing.total * 1e3},
            {"tokens_per_second", a.timing.decode > 0 ? tokens / a.timing.decode : 0.0},
            {"finish_reason", a.choices[0].finish_reason},
            {"conversation_id", a.conversation ? json(*a.conversation) : json()},
            {"usage", usage_json(a.usage)},
            {"cache_miss", name_of(a.usage.miss)},
            {"seed", a.seed},
            {"timing", std::move(timing)}};
  }

 private:
  const std::string model_;
  const EventText piece_{json{{"text", EventText::kHere}}};
};

}  // namespace

std::unique_ptr<Dialect> generate_dialect(const Asked& asked) { return std::make_unique<GenerateDialect>(asked); }

}  // namespace krait::serve
