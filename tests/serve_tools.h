// What tests of the service share: a tokenizer and a chat template for the tiny models, a clock that is set, a listener
// that writes down what it hears, and the answer that a plain engine gives alone.
#pragma once
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "krait/core/error.h"
#include "krait/serve/service/prompt.h"
#include "krait/serve/service/service.h"
#include "krait/text/token_text.h"
#include "tests/tiny_models.h"

namespace krait::serve::test {

using krait::test::tiny_model;

// 29 ids: special tokens, letters, longer pieces that the longest match prefers (so that generated ids are often not
// the ids of their text), two halves of a character.
class TinyTokenizer : public text::Tokenizer {
 public:
  std::string name() const override { return "tiny"; }
  int64_t vocab_size() const override { return std::ssize(pieces_); }
  std::optional<int32_t> bos_id() const override { return 0; }
  std::vector<int32_t> eos_ids() const override { return {1}; }
  std::string chat_template() const override { return ""; }
  std::string token_bytes(int32_t id, bool) const override {
    return id >= 0 && id < vocab_size() ? pieces_[static_cast<size_t>(id)] : "";
  }
  bool is_special(int32_t id) const override { return id < 4; }
  std::optional<int32_t> token_id(std::string_view token) const override {
    const auto it = std::ranges::find(pieces_, token);
    if (it == pieces_.end()) return std::nullopt;
    return static_cast<int32_t>(it - pieces_.begin());
  }
  std::vector<int32_t> encode(std::string_view text, text::EncodeOptions o = {}) const override {
    std::vector<int32_t> ids;
    if (o.add_special) ids.push_back(0);
    for (size_t i = 0; i < text.size();) {
      int32_t best = 4;  // what is unknown is a space
      size_t length = 0;
      for (int32_t id = o.parse_special ? 0 : 4; id < vocab_size(); ++id) {
        const std::string& p = pieces_[static_cast<size_t>(id)];
        if (p.size() > length && text.substr(i).starts_with(p)) best = id, length = p.size();
      }
      ids.push_back(best);
      i += std::max<size_t>(length, 1);
    }
    return ids;
  }

 private:
  std::vector<std::string> pieces_ = {"<s>", "<e>", "<u>",  "<a>", " ",  "a",   "b",    "c",    "d", "e",
                                      "f",   "g",   "h",    "i",   "j",  "k",   "l",    "m",    "n", "\n",
                                      "ab",  "cd",  "abcd", " a",  "ef", "fe ", "\xC3", "\xA9", "ba"};
};

inline const text::Tokenizer& tiny_tokenizer() {
  static const TinyTokenizer tokenizer;
  return tokenizer;
}

inline const text::ChatTemplate& tiny_chat() {
  static const auto chat = text::compile_chat_template(
      "{% for m in messages %}{{ '<a>' if m.role == 'assistant' else '<u>' }}{{ m.content }}<e>{% endfor %}"
      "{% if add_generation_prompt %}<a>{% endif %}",
      "<s>", "<e>");
  return *chat;
}

class SetClock : public Clock {
 public:
  std::chrono::nanoseconds steady() const override { return std::chrono::nanoseconds(now_.load()); }
  std::chrono::system_clock::time_point wall() const override {
    return std::chrono::system_clock::time_point(std::chrono::seconds(1'800'000'000)) +
           std::chrono::duration_cast<std::chrono::system_clock::duration>(steady());
  }
  void advance(std::chrono::nanoseconds by) { now_ += by.count(); }

 private:
  std::atomic<int64_t> now_{1'000'000'000};
};

// All it heard; the last call exactly once, in order.
class Recorder : public Listener {
 public:
  void started(const Usage& u) override {
    const std::lock_guard lock(mutex);
    usage = u;
  }
  void delta(const Delta& d) override {
    const std::lock_guard lock(mutex);
    if (ended > 0) ++out_of_order;
    deltas.push_back(d);
    if (throws) throw std::runtime_error("the listener broke");
  }
  void done(const Answer& a) override {
    const std::lock_guard lock(mutex);
    ++ended;
    answer = a;
  }
  void failed(const ServeError& e) override {
    const std::lock_guard lock(mutex);
    ++ended;
    error = e;
  }
  std::string text_of(int64_t choice) const {  // as a client puts it together
    std::string all;
    for (const Delta& d : deltas)
      if (d.choice == choice) all += d.text;
    return all + answer->choices[static_cast<size_t>(choice)].last_text;
  }
  int status() const { return error ? error->status() : answer ? 200 : 0; }
  bool has_ended() const {
    const std::lock_guard lock(mutex);
    return ended > 0;
  }

  mutable std::mutex mutex;
  bool throws = false;
  std::optional<Usage> usage;
  std::vector<Delta> deltas;
  std::optional<Answer> answer;
  std::optional<ServeError> error;
  int ended = 0, out_of_order = 0;
};

// What a request is answered, by definition: `ids` read from the beginning, and written on.
struct Expected {
  std::vector<int32_t> ids;  // before a stop string
  std::string text, finish_reason;
};
inline Expected expected(const Model& model, const std::vector<int32_t>& ids, const GenerateRequest& r,
                         int64_t choice = 0) {
  Request q;
  q.adapter = r.adapter;
  q.prompt = ids;
  q.max_new_tokens = r.max_tokens;
  q.sampler = r.sampler;
  q.sampler.stream += static_cast<uint64_t>(choice);
  if (!r.ignore_eos) q.stop_ids = tiny_tokenizer().eos_ids();
  text::TokenText text(tiny_tokenizer(), r.stops);
  q.on_token = [&](const GeneratedToken& t) {
    text.push(t.id);
    return text.stop() == nullptr;
  };
  const Generation g = Engine(model, {.max_sequences = 1}).run(std::move(q)).generations.front();
  text.finish();
  Expected e{g.ids, text.text(), g.reason == FinishReason::kLength ? "length" : "stop"};
  if (text.stop() != nullptr) e.ids.resize(text.tokens_before_stop());
  return e;
}

inline SamplerParams seeded(uint64_t seed) {
  SamplerParams p;
  p.temperature = 1.1;
  p.top_p = 0.95;
  p.repetition_penalty = 1.1;
  p.seed = seed;
  return p;
}

// A service over a tiny model, with a simulated clock and memory only.
class Server {
 public:
  explicit Server(const Model& m, ServiceOptions o = {}, PrefixCacheOptions c = {}, Store* local = nullptr)
      : model(m),
        cache(c, clock),
        conversations({.model = m.fingerprint(-1), .adapted = adapted(m)}, cache, local, nullptr, clock),
        service(m, tiny_tokenizer(), &tiny_chat(), cache, conversations, clock, o, probe()) {}

  static std::vector<uint64_t> adapted(const Model& m) {
    std::vector<uint64_t> all;
    for (size_t i = 0; i < m.adapters().size(); ++i) all.push_back(m.fingerprint(static_cast<int32_t>(i)));
    return all;
  }
  ServiceProbe probe() {
    ServiceProbe p;
    p.fault = [this](const std::string&, const std::string& what) {
      const std::lock_guard lock(mutex);
      faults.push_back(what);
    };
    return p;
  }
  std::shared_ptr<Recorder> submit(GenerateRequest r, int64_t* ticket = nullptr) {
    auto heard = std::make_shared<Recorder>();
    if (r.id.empty()) r.id = "r-" + std::to_string(++last_id);
    const int64_t t = service.submit(std::move(r), heard);
    if (ticket != nullptr) *ticket = t;
    return heard;
  }
  std::shared_ptr<Recorder> ask(GenerateRequest r) {  // and waits
    auto heard = submit(std::move(r));
    run_dry();
    return heard;
  }
  void run_dry() {
    while (service.step()) clock.advance(std::chrono::milliseconds(1));
  }

  const Model& model;
  SetClock clock;
  std::mutex mutex;
  std::vector<std::string> faults;
  std::atomic<int64_t> last_id{0};
  PrefixCache cache;
  Conversations conversations;
  Service service;
};

inline GenerateRequest text_request(const std::string& text, int64_t n, uint64_t seed = 1) {
  GenerateRequest r;
  r.input.text = text;
  r.max_tokens = n;
  r.sampler = seeded(seed);
  r.ignore_eos = true;
  return r;
}

inline GenerateRequest ids_request(std::vector<int32_t> ids, int64_t n, uint64_t seed = 1) {
  GenerateRequest r = text_request("", n, seed);
  r.input.text.reset();
  r.input.ids = std::move(ids);
  return r;
}

inline GenerateRequest chat_request(std::vector<text::Message> messages, int64_t n, uint64_t seed = 1) {
  GenerateRequest r = text_request("", n, seed);
  r.input.text.reset();
  r.input.messages = std::move(messages);
  r.ignore_eos = false;
  return r;
}

inline std::vector<int32_t> chat_ids(const std::vector<text::Message>& messages) {
  return tokenize_chat(tiny_tokenizer(), render_chat(tiny_chat(), messages)).ids;
}

}  // namespace krait::serve::test
