#include "krait/text/document_encoder.h"

#include <algorithm>

#include "krait/core/error.h"

namespace krait::text {
namespace {

void append_ids(const std::vector<int32_t>& ids, bool learned, EncodedDocument& out) {
  out.ids.insert(out.ids.end(), ids.begin(), ids.end());
  out.learned.insert(out.learned.end(), ids.size(), learned ? 1 : 0);
}

}  // namespace

DocumentEncoder::DocumentEncoder(const Tokenizer& t, std::unique_ptr<ChatTemplate> chat, DocumentOptions options)
    : tokenizer_(t), chat_(std::move(chat)), options_(std::move(options)), after_(options_.after) {
  if (options_.before) {
    before_ = *options_.before;
  } else {
    // What is added around nothing begins with what stands before a text.
    const auto bos = t.bos_id();
    const auto around = t.encode("", {.add_special = true});
    if (bos && !around.empty() && around.front() == *bos) before_ = {*bos};
  }
}

void DocumentEncoder::append(const std::string& text, bool parse_special, bool learned, EncodedDocument& out) const {
  append_ids(tokenizer_.encode(text, {.add_special = false, .parse_special = parse_special}), learned, out);
}

void DocumentEncoder::append_text(const std::string& text, EncodedDocument& out) const {
  if (!options_.split_paragraphs) return append(text, options_.parse_special, true, out);
  constexpr std::string_view kEnd = "\n\n";
  for (size_t begin = 0;;) {
    const size_t end = text.find(kEnd, begin);
    append(text.substr(begin, end - begin).append(kEnd), options_.parse_special, true, out);
    if (end == std::string::npos) return;
    begin = end + kEnd.size();
  }
}

// What the assistant says is what the template adds to the text that opens its turn. Each part is encoded by itself, as
// it is when the model answers.
void DocumentEncoder::append_chat(const Document& d, EncodedDocument& out) const {
  if (!chat_) {
    fail_data("[chat] " + d.where + ": a conversation, and the tokenizer has no chat template: name one");
  }
  std::vector<Message> so_far;
  std::string done;
  const auto part_after = [&](const std::string& whole) {
    if (!whole.starts_with(done)) {
      fail_data("[chat] " + d.where + ": the template writes earlier turns otherwise once message " +
                std::to_string(so_far.size()) + " follows: it is not clear what the assistant said");
    }
    std::string part = whole.substr(done.size());
    done = whole;
    return part;
  };
  for (const Message& m : d.messages) {
    if (m.role == "assistant") {
      append(part_after(chat_->render(so_far, true)), true, options_.learn_all, out);
      so_far.push_back(m);
      append(part_after(chat_->render(so_far, false)), true, true, out);
    } else {
      so_far.push_back(m);
    }
  }
  if (d.messages.empty() || d.messages.back().role != "assistant") {
    const std::string rest = part_after(chat_->render(so_far, false));
    if (options_.learn_all) append(rest, true, true, out);
  }
}

EncodedDocument DocumentEncoder::encode(const Document& d) const {
  EncodedDocument out;
  const bool around = d.kind != Document::Kind::kChat || options_.around_chats;
  if (around) append_ids(before_, true, out);
  switch (d.kind) {
    case Document::Kind::kText:
      append_text(d.text, out);
      break;
    case Document::Kind::kCompletion:
      append(d.prompt, options_.parse_special, options_.learn_all, out);
      append(d.text, options_.parse_special, true, out);
      break;
    case Document::Kind::kChat:
      append_chat(d, out);
      break;
  }
  if (around) append_ids(after_, true, out);
  if (std::ranges::find(out.learned, uint8_t{0}) == out.learned.end()) out.learned.clear();
  return out;
}

}  // namespace krait::text
