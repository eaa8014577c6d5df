#include "krait/serve/service/prompt.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "krait/core/error.h"
#include "krait/serve/serve_error.h"

namespace krait::serve {
namespace {

// Not characters, in no text that is exchanged: they stand before an answer and behind any message while the template
// prints them, and show where it put them.
constexpr std::string_view kBegin = "\xEF\xB7\x90", kEnd = "\xEF\xB7\x91";  // U+FDD0, U+FDD1
constexpr std::string_view kSpace = " \t\n\r\f\v";

// A turn that stands for an unknown past: templates render what follows as after any other turn.
const std::vector<text::Message> kUnknownPast = {{"user", "?"}, {"assistant", "."}};

// `outside`: around the spaces at the ends of a message; else within them, for templates that trim.
std::string marked(const text::Message& m, bool outside) {
  size_t first = 0, last = m.content.size();
  if (!outside) {
    first = std::min(m.content.find_first_not_of(kSpace), m.content.size());
    last = std::max(first, m.content.find_last_not_of(kSpace) + 1);
  }
  std::string s = m.content;
  s.insert(last, kEnd);
  if (m.role == "assistant") s.insert(first, kBegin);
  return s;
}

struct Place {
  size_t at;  // in the text without the marks
  bool begin;
};

std::vector<Place> take_marks(std::string& text) {
  std::vector<Place> places;
  std::string plain;
  for (size_t i = 0; i < text.size();) {
    const auto rest = std::string_view(text).substr(i, kBegin.size());
    if (rest == kBegin || rest == kEnd) {
      places.push_back({plain.size(), rest == kBegin});
      i += rest.size();
    } else {
      plain += text[i++];
    }
  }
  text = std::move(plain);
  return places;
}

// Where the template put the messages; empty if the marks changed what it says.
std::vector<Place> find_places(const text::ChatTemplate& chat, const std::vector<text::Message>& messages,
                               const std::string& plain) {
  for (const text::Message& m : messages)
    if (m.content.find(kBegin) != std::string::npos || m.content.find(kEnd) != std::string::npos) return {};
  for (const bool outside : {true, false}) {
    std::vector<text::Message> with_marks = messages;
    for (text::Message& m : with_marks) m.content = marked(m, outside);
    std::string text;
    try {
      text = chat.render(with_marks, true);
    } catch (const Error&) {
      return {};
    }
    auto places = take_marks(text);
    if (text == plain) return places;
  }
  return {};
}

}  // namespace

ChatText render_chat(const text::ChatTemplate& chat, const std::vector<text::Message>& messages) {
  ChatText out{chat.render(messages, true), {}};
  const std::vector<Place> places = find_places(chat, messages, out.text);
  if (places.empty() || places.back().begin) return out;
  // What follows the last message is what any answer follows.
  const auto opening = std::string_view(out.text).substr(places.back().at);
  for (size_t i = 0; i < places.size(); ++i) {
    const bool behind_system = i == 0 && messages.front().role == "system";
    const bool behind_answer = i > 0 && places[i - 1].begin && !places[i].begin;
    if (behind_system || behind_answer) out.cuts.push_back(places[i].at);
    const bool before_answer = i > 0 && places[i].begin && !places[i - 1].begin;
    const size_t from = before_answer ? places[i - 1].at : 0;
    if (before_answer && std::string_view(out.text).substr(from, places[i].at - from).starts_with(opening)) {
      out.cuts.push_back(from + opening.size());
    }
  }
  std::ranges::sort(out.cuts);
  const auto twice = std::ranges::unique(out.cuts);
  out.cuts.erase(twice.begin(), twice.end());
  return out;
}

ChatText render_continuation(const text::ChatTemplate& chat, const std::vector<text::Message>& messages) {
  std::vector<text::Message> all = kUnknownPast;
  all.insert(all.end(), messages.begin(), messages.end());
  ChatText out = render_chat(chat, all);
  const std::string past = chat.render({kUnknownPast[0]}, true) + kUnknownPast[1].content;
  if (!out.text.starts_with(past)) {
    fail_usage("[chat] this model's template rewrites earlier turns: send the whole history instead of a conversation");
  }
  out.text.erase(0, past.size());
  std::erase_if(out.cuts, [&](size_t c) { return c <= past.size(); });
  for (size_t& c : out.cuts) c -= past.size();
  return out;
}

PromptIds tokenize_chat(const text::Tokenizer& tokenizer, const ChatText& chat) {
  PromptIds out;
  size_t from = 0;
  const auto read_to = [&](size_t to) {
    const auto part = std::string_view(chat.text).substr(from, to - from);
    from = to;
    if (part.empty()) return;
    const std::vector<int32_t> ids = tokenizer.encode(part, {.add_special = false, .parse_special = true});
    out.ids.insert(out.ids.end(), ids.begin(), ids.end());
  };
  for (const size_t cut : chat.cuts) {
    read_to(cut);
    out.cuts.push_back(static_cast<int64_t>(out.ids.size()));
  }
  read_to(chat.text.size());
  const auto twice = std::ranges::unique(out.cuts);
  out.cuts.erase(twice.begin(), twice.end());
  std::erase_if(out.cuts, [&](int64_t c) { return c == 0 || c == std::ssize(out.ids); });
  return out;
}

ControlTexts::ControlTexts(const text::Tokenizer& tokenizer) {
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!tokenizer.is_special(id)) continue;
    std::string text = tokenizer.token_bytes(id);
    // As written, not only as a token: vocabularies have unused ids and bytes among their special ones.
    const auto ids =
        text.empty() ? std::vector<int32_t>{} : tokenizer.encode(text, {.add_special = false, .parse_special = true});
    if (ids.size() == 1 && ids.front() == id) texts_.push_back(std::move(text));
  }
}

void ControlTexts::refuse_in(const std::vector<text::Message>& messages) const {
  for (size_t i = 0; i < messages.size(); ++i) {
    for (const std::string& text : texts_) {
      if (messages[i].content.find(text) == std::string::npos) continue;
      throw ServeError(
          400, "control_token",
          fmt::format("[request] message {} holds '{}', which is a token of its own for this model", i, text),
          "messages");
    }
  }
}

std::vector<int32_t> ids_with_answer(const text::Tokenizer& tokenizer, const text::ChatTemplate& chat,
                                     std::vector<text::Message> messages, const std::string& answer) {
  messages.push_back({"assistant", answer});
  messages.push_back({"user", "?"});
  ChatText next;
  try {
    next = render_chat(chat, messages);
  } catch (const Error&) {
    return {};  // no such history can be
  }
  // The last cut is the end of the answer, since it is the last one.
  if (next.cuts.empty()) return {};
  next.text.resize(next.cuts.back());
  next.cuts.pop_back();
  return tokenize_chat(tokenizer, next).ids;
}

std::vector<int64_t> places_to_keep(int64_t have, int64_t total, int64_t known, const std::vector<int64_t>& cuts,
                                    int64_t every) {
  constexpr int64_t kNear = 16;         // tokens that are read again rather than kept a state for
  constexpr int64_t kCheckpoints = 32;  // at most, of one prompt
  constexpr size_t kLastCuts = 4;
  std::vector<int64_t> places;
  if (have >= total) return places;
  if (known - have >= kNear) places.push_back(known);
  if (!cuts.empty()) places.push_back(cuts.front());
  for (size_t i = 0; i < std::min(kLastCuts, cuts.size()); ++i) places.push_back(cuts[cuts.size() - 1 - i]);
  // Doubled, so that prompts of other lengths keep states at the same places.
  while ((total - have) / every > kCheckpoints) every *= 2;
  for (int64_t p = (have / every + 1) * every; p < total; p += every) places.push_back(p);
  std::ranges::sort(places);
  std::vector<int64_t> out;
  for (const int64_t p : places) {
    const int64_t last = out.empty() ? have : out.back();
    if (p - last >= kNear && total - p >= kNear) out.push_back(p);
  }
  // Where the prompt leaves the known ones is where others will: it is kept even if another place is near.
  if (known - have >= kNear && known < total && std::ranges::find(out, known) == out.end()) {
    out.insert(std::ranges::upper_bound(out, known), known);
  }
  out.push_back(total);
  return out;
}

}  // namespace krait::serve
