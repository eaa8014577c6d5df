#include "krait/text/pipeline.h"

#include <algorithm>
#include <unordered_map>

#include "krait/text/byte_chars.h"
#include "krait/text/piece_cache.h"
#include "krait/text/utf8.h"

namespace krait::text {
namespace {

class CachedEncoder final : public PieceSink {
 public:
  CachedEncoder(const PieceModel& model, PieceCachePool& pool, std::vector<int32_t>& out)
      : model_(model), pool_(pool), cache_(pool.take()), out_(out) {}
  ~CachedEncoder() override { pool_.give_back(std::move(cache_)); }
  CachedEncoder(const CachedEncoder&) = delete;
  CachedEncoder& operator=(const CachedEncoder&) = delete;

  void piece(std::string_view text, bool) override {
    if (cache_->find(text, out_)) return;
    const size_t start = out_.size();
    model_.encode(text, out_);
    cache_->store(text, std::span(out_).subspan(start));
  }

 private:
  const PieceModel& model_;
  PieceCachePool& pool_;
  std::unique_ptr<PieceCache> cache_;
  std::vector<int32_t>& out_;
};

class PipelineTokenizer final : public Tokenizer {
 public:
  explicit PipelineTokenizer(Pipeline p) : p_(std::move(p)), vocab_size_(p_.model->size()) {
    std::string buffer;
    for (size_t i = 0; i < p_.added.size(); ++i) {
      const AddedToken& t = p_.added[i];
      vocab_size_ = std::max<int64_t>(vocab_size_, t.id + 1);
      added_by_id_.emplace(t.id, i);
      added_by_text_.emplace(t.content, t.id);
    }
    // Where two look the same, a special token comes before another.
    for (const bool special : {true, false}) {
      for (const AddedToken& t : p_.added) {
        if (t.special != special) continue;
        if (t.normalized) {
          normalized_.add(p_.normalizer.apply(t.content, buffer), t);
        } else {
          raw_.add(t.content, t);
        }
      }
    }
  }

  std::string name() const override { return p_.name; }
  int64_t vocab_size() const override { return vocab_size_; }
  std::optional<int32_t> bos_id() const override { return p_.bos; }
  std::vector<int32_t> eos_ids() const override { return p_.eos; }
  std::string chat_template() const override { return p_.chat_template; }

  std::vector<int32_t> encode(std::string_view text, EncodeOptions options) const override {
    std::string replaced;
    if (!is_valid_utf8(text)) {
      replaced = replace_invalid_utf8(text);
      text = replaced;
    }
    std::vector<int32_t> ids;
    ids.reserve(text.size() / 3 + 8);
    if (options.add_special) ids = p_.before;
    encode_text(text, options.parse_special, ids);
    if (options.add_special) ids.insert(ids.end(), p_.after.begin(), p_.after.end());
    return ids;
  }

  std::string token_bytes(int32_t id, bool first) const override {
    const std::string_view token = token_text(id);
    return token.empty() ? std::string() : p_.decoder(id, token, first);
  }
  bool is_byte(int32_t id) const override { return p_.joins_bytes && fallback_byte(token_text(id)) >= 0; }
  // As the tokenizers package has it: all of a run or none.
  std::string text_of_bytes(std::string_view run) const override {
    std::string out;
    if (is_valid_utf8(run)) return out.assign(run);
    for (size_t i = 0; i < run.size(); ++i) out += kReplacementUtf8;
    return out;
  }
  bool is_special(int32_t id) const override {
    const auto at = added_by_id_.find(id);
    return at != added_by_id_.end() && p_.added[at->second].special;
  }
  std::optional<int32_t> token_id(std::string_view token) const override {
    const auto at = added_by_text_.find(std::string(token));
    return at != added_by_text_.end() ? std::optional(at->second) : p_.model->id(token);
  }

 private:
  std::string_view token_text(int32_t id) const {
    const auto at = added_by_id_.find(id);
    return at != added_by_id_.end() ? std::string_view(p_.added[at->second].content) : p_.model->token(id);
  }

  void encode_text(std::string_view text, bool parse_special, std::vector<int32_t>& ids) const {
    CachedEncoder encoder(*p_.model, caches_, ids);
    std::string buffer;
    raw_.split(text, parse_special, [&](std::string_view part, int32_t id) {
      if (id >= 0) return ids.push_back(id);
      const bool at_start = part.data() == text.data();
      const std::string_view normal = p_.normalizer.apply(part, buffer);
      normalized_.split(normal, parse_special, [&](std::string_view piece, int32_t inner) {
        if (inner >= 0) return ids.push_back(inner);
        pre_tokenize(p_.pre_tokenizers, piece, at_start && piece.data() == normal.data(), encoder);
      });
    });
  }

  Pipeline p_;
  int64_t vocab_size_;
  AddedTokenMatcher raw_, normalized_;
  std::unordered_map<int32_t, size_t> added_by_id_;
  std::unordered_map<std::string, int32_t> added_by_text_;
  mutable PieceCachePool caches_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_pipeline_tokenizer(Pipeline p) {
  return std::make_unique<PipelineTokenizer>(std::move(p));
}

}  // namespace krait::text
