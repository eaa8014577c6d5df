// Added tokens: texts that are cut out before anything else looks at the input.
#pragma once
#include <array>
#include <bitset>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace krait::text {

struct AddedToken {
  std::string content;
  int32_t id = -1;
  bool special = false;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // … after it
  bool normalized = false;   // is looked for in the normalized text
};

class AddedTokenMatcher {
 public:
  // `pattern`: what to look for (the content, or its normal form). Empty patterns are never found.
  void add(std::string_view pattern, const AddedToken& token);
  bool empty() const { return tokens_.empty(); }

  // From left to right, the longest first: calls `found` with an id for a token, with -1 for the text between them
  // (never empty). Special tokens are passed over if `parse_special` is false.
  void split(std::string_view text, bool parse_special,
             const std::function<void(std::string_view, int32_t)>& found) const;

 private:
  struct Node {
    int32_t child = -1, sibling = -1, token = -1;  // indices; token: of tokens_, if a pattern ends here
    char byte = 0;
  };
  struct Hit {
    size_t begin = 0, end = 0;
    int32_t token = -1;
  };
  int32_t child_of(int32_t node, char byte) const;
  Hit next_hit(std::string_view text, size_t from) const;

  std::vector<Node> nodes_ = std::vector<Node>(1);  // the first is the root
  std::bitset<256> starts_;                         // first bytes of patterns
  std::bitset<65536> pairs_;                        // first two bytes; a one-byte pattern sets all its pairs
  std::vector<AddedToken> tokens_;
};

}  // namespace krait::text
