#include "conversation.h"

#include <algorithm>
#include <limits>

#include "generate.h"
#include "krait/core/error.h"
#include "krait/text/token_text.h"
#include "progress.h"

namespace krait::cli {
namespace {

// A turn that stands for the unknown past of a loaded state: templates render what follows as after any other turn.
const std::vector<text::Message> kUnknownPast = {{"user", "?"}, {"assistant", "."}};

std::string unknown_past_text(const text::ChatTemplate& chat) {
  return chat.render({kUnknownPast[0]}, true) + kUnknownPast[1].content;
}

size_t common_length(const std::string& a, const std::string& b) {
  return static_cast<size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
}

}  // namespace

std::vector<int32_t> open_turn(const text::Tokenizer& tokenizer, const text::ChatTemplate& chat,
                               const std::string& system, const std::string& message, bool continues) {
  std::vector<text::Message> messages = continues ? kUnknownPast : std::vector<text::Message>{};
  if (!system.empty()) {
    if (continues) fail_usage("[chat] a loaded state already has its beginning: --system cannot be put before it");
    messages.push_back({"system", system});
  }
  messages.push_back({"user", message});
  std::string text = chat.render(messages, true);
  if (continues) {
    const std::string past = unknown_past_text(chat);
    if (!text.starts_with(past)) fail_data("[chat] this template rewrites earlier turns: it cannot go on from a state");
    text.erase(0, past.size());
  }
  return tokenizer.encode(text, {.add_special = false, .parse_special = true});
}

Conversation::Conversation(const Session& session, const text::ChatTemplate* chat, ConversationOptions options)
    : session_(session),
      chat_(chat),
      options_(std::move(options)),
      engine_(session.model(), {.max_sequences = 1, .vocab = session.sampled_vocab(), .cancel = options_.cancel}) {
  reset();
}

void Conversation::reset() {
  messages_.clear();
  if (!options_.system.empty()) messages_.push_back({"system", options_.system});
  text_.clear();
  state_ = nullptr;
  origin_ = {};
  turns_.clear();
  fresh_rng_ = false;
}

void Conversation::load(std::shared_ptr<const State> state) {
  check_fits(session_.model(), *state);
  reset();
  messages_ = chat_ != nullptr ? kUnknownPast : std::vector<text::Message>{};
  text_ = chat_ != nullptr ? unknown_past_text(*chat_) : "";
  state_ = std::move(state);
  origin_ = {state_, text_.size()};
  fresh_rng_ = options_.new_rng;
}

std::string Conversation::render() const {
  if (chat_ != nullptr) return chat_->render(messages_, true);
  std::string text;
  for (const text::Message& m : messages_) {
    const bool new_paragraph = m.role == "user" && !m.content.empty() && (!text.empty() || origin_.state);
    text += (new_paragraph ? "\n\n" : "") + m.content;
  }
  return text;
}

// Makes text_ a beginning of `target`, going back to the latest kept state that has read nothing else.
bool Conversation::go_back_to_common(const std::string& target, std::string& note) {
  if (target.starts_with(text_)) return true;
  const size_t common = common_length(target, text_);
  Mark best = origin_;
  for (Turn& t : turns_) {
    for (std::optional<Mark>* m : {&t.before, &t.read}) {
      if (*m && (*m)->text <= common && (*m)->text >= best.text) best = **m;
      if (*m && (*m)->text > common) m->reset();
    }
  }
  if (best.text > common) return false;
  const int64_t from = state_ ? state_->position() : 0, to = best.state ? best.state->position() : 0;
  note = "the history is written differently now: went back from token " + std::to_string(from) + " to " +
         std::to_string(to) + " and read on from there";
  state_ = best.state;
  text_.resize(best.text);
  return true;
}

std::vector<int32_t> Conversation::encode_new(const std::string& target) const {
  const bool begins_text = !state_ && chat_ == nullptr;  // templates write BOS themselves
  return session_.tokenizer->encode(std::string_view(target).substr(text_.size()),
                                    {.add_special = begins_text, .parse_special = true});
}

void Conversation::read(const std::vector<int32_t>& ids, Reply& reply) {
  if (ids.empty()) return;
  ProgressBar bar("reading", static_cast<int64_t>(ids.size()), "tokens");
  int64_t seen = 0;
  Request r;
  r.prompt = ids;
  r.start = state_;
  r.sampler = options_.sampler;
  r.keep_state = true;
  r.on_prefill = [&](int64_t read, int64_t) { bar.advance(read - std::exchange(seen, read)); };
  const double begin = uptime();
  Result result = engine_.run(std::move(r));
  reply.read_seconds = uptime() - begin;
  reply.read = result.prompt_read;
  reply.interrupted = result.prompt_read < static_cast<int64_t>(ids.size());
  if (!reply.interrupted) state_ = result.generations.front().state;
}

void Conversation::answer(const Show& show, Reply& reply) {
  Turn& turn = turns_.back();
  text::TokenText shown(*session_.tokenizer, options_.stops);
  std::string raw;  // what the state will have read
  Request r;
  r.start = state_;
  r.max_new_tokens = options_.max_new_tokens < 0 ? std::numeric_limits<int64_t>::max() : options_.max_new_tokens;
  r.sampler = options_.sampler;
  r.sampler.stream += turn.attempts;
  r.new_rng = fresh_rng_ || turn.attempts > 0;
  r.stop_ids = options_.stop_ids;
  r.keep_state = true;
  r.on_token = [&](const GeneratedToken& t) {
    raw += session_.tokenizer->token_bytes(t.id);
    return show(shown.push(t.id)) && shown.stop() == nullptr;
  };
  const double begin = uptime();
  Result result = engine_.run(std::move(r));
  show(shown.finish());
  Generation& g = result.generations.front();
  reply.write_seconds = uptime() - begin;
  reply.written = static_cast<int64_t>(g.ids.size());
  reply.interrupted = g.reason == FinishReason::kCancelled;
  state_ = std::move(g.state);
  text_ += raw;
  // A stop string is not part of the answer, though the state has read it: the next turn then goes back a little.
  messages_.push_back({"assistant", shown.stop() != nullptr ? shown.text() : raw});
  turn.attempts += 1;
  fresh_rng_ = false;
}

Reply Conversation::say(const std::string& message, const Show& show) {
  Reply reply;
  const auto messages = messages_;
  const auto turns = turns_;
  const auto state = state_;
  const auto text = text_;
  const auto take_back = [&] {
    messages_ = messages;
    turns_ = turns;
    state_ = state;
    text_ = text;
  };
  try {
    messages_.push_back({"user", message});
    const std::string target = render();
    if (!go_back_to_common(target, reply.note)) {
      fail_data("[chat] this template rewrites earlier turns: it cannot go on from a loaded state");
    }
    turns_.push_back({Mark{state_, text_.size()}, {}, messages.size(), 0});
    const std::vector<int32_t> ids = encode_new(target);
    if (ids.empty() && !state_) fail_usage("[chat] there is no text to begin with");
    read(ids, reply);
    if (reply.interrupted) {
      take_back();
      reply.taken_back = true;
      return reply;
    }
    text_ = target;
    turns_.back().read = Mark{state_, text_.size()};
    answer(show, reply);
  } catch (...) {
    take_back();
    throw;
  }
  trim_marks();
  return reply;
}

Reply Conversation::regenerate(const Show& show) {
  if (turns_.empty()) fail_usage("[chat] there is no answer to write again");
  if (!turns_.back().read) fail_usage("[chat] the state before the last answer is no longer kept");
  const Mark& from = *turns_.back().read;
  messages_.pop_back();
  state_ = from.state;
  text_.resize(from.text);
  Reply reply;
  answer(show, reply);
  return reply;
}

void Conversation::undo() {
  if (turns_.empty()) fail_usage("[chat] there is no turn to undo");
  const Turn& turn = turns_.back();
  if (!turn.before) fail_usage("[chat] the state before that turn is no longer kept");
  messages_.resize(turn.messages);
  state_ = turn.before->state;
  text_.resize(turn.before->text);
  turns_.pop_back();
}

int64_t Conversation::kept_bytes() const {
  int64_t bytes = 0;
  std::vector<const State*> counted;
  const auto count = [&](const State* s) {
    if (s == nullptr || std::ranges::count(counted, s) > 0) return;
    counted.push_back(s);
    bytes += s->nbytes();
  };
  for (const Turn& t : turns_) {
    if (t.before) count(t.before->state.get());
    if (t.read) count(t.read->state.get());
  }
  return bytes;
}

void Conversation::trim_marks() {
  for (size_t i = 0; i + 1 < turns_.size() && kept_bytes() > kKeptStateBytes; ++i) {
    turns_[i].before.reset();
    turns_[i].read.reset();
  }
}

}  // namespace krait::cli
