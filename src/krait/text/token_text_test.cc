#include "krait/text/token_text.h"

#include <gtest/gtest.h>

#include <map>

namespace krait::text {
namespace {

// Ids are indexes into a list of byte strings.
class Pieces : public Tokenizer {
 public:
  explicit Pieces(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {}
  std::string name() const override { return "pieces"; }
  int64_t vocab_size() const override { return static_cast<int64_t>(pieces_.size()); }
  std::optional<int32_t> bos_id() const override { return std::nullopt; }
  std::vector<int32_t> eos_ids() const override { return {}; }
  std::string chat_template() const override { return ""; }
  std::vector<int32_t> encode(std::string_view, EncodeOptions) const override { return {}; }
  std::string token_bytes(int32_t id, bool) const override { return pieces_[static_cast<size_t>(id)]; }
  bool is_special(int32_t id) const override { return pieces_[static_cast<size_t>(id)].starts_with("<|"); }
  std::optional<int32_t> token_id(std::string_view) const override { return std::nullopt; }

 private:
  std::vector<std::string> pieces_;
};

size_t before_stop(const std::vector<std::string>& pieces, const std::vector<std::string>& stops) {
  const Pieces tokenizer(pieces);
  TokenText text(tokenizer, stops);
  for (size_t i = 0; i < pieces.size(); ++i) text.push(static_cast<int32_t>(i));
  text.finish();
  return text.tokens_before_stop();
}

TEST(TokenText, TokensThatLieWhollyBeforeTheStopString) {
  EXPECT_EQ(before_stop({"a", "b", "c"}, {}), 3u);
  EXPECT_EQ(before_stop({"a", "b", "c"}, {"x"}), 3u);
  EXPECT_EQ(before_stop({"a", "b", "\n\n"}, {"\n\n"}), 2u);
  EXPECT_EQ(before_stop({"a", "b", "c\n", "\n"}, {"\n\n"}), 2u) << "part of a token is part of the stop string";
  EXPECT_EQ(before_stop({"a", "b", "\n", "\n"}, {"\n\n"}), 2u);
  EXPECT_EQ(before_stop({"stop"}, {"stop"}), 0u);
  EXPECT_EQ(before_stop({"a", "<|x|>", "stop"}, {"stop"}), 2u) << "tokens without text";
  EXPECT_EQ(before_stop({"a", "\xC3", "\xA9", "!"}, {"!"}), 3u) << "a character of two tokens";
  EXPECT_EQ(before_stop({"a", "\xC3", "\xA9", "!"}, {"\xC3\xA9!"}), 1u) << "that begins the stop string";
  EXPECT_EQ(before_stop({"a", "\xC3", "\xA9\n", "\n"}, {"\n\n"}), 1u) << "whose end is part of a token of it";
}

}  // namespace
}  // namespace krait::text
