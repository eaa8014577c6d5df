#include "quantize_texts.h"

#include <algorithm>

#include "krait/core/error.h"
#include "session.h"
#include "text_file.h"

namespace krait::cli {
namespace {

constexpr int64_t kMostTokens = int64_t{1} << 40;  // more than any text has; sums of such stay in range
constexpr const char* kBuiltInName = "built-in text";
constexpr const char* kBuiltIn =
    "The harbour lay still in the early light, and the boats that had come in during the night were being unloaded "
    "without haste. A man in a grey coat walked along the quay, counting the barrels under his breath and writing the "
    "numbers in a small book. When he came to the last of them he stopped, looked back at the long row, and began to "
    "count again.\n\n"
    "\"You will get the same number,\" said the woman who sold bread at the corner. \"You always do.\"\n\n"
    "\"That is why I count twice,\" he answered. \"If it were different, I should have to count three times.\"\n\n"
    "She laughed and gave him a loaf, which he paid for with a coin that was worth more than the bread. In those years "
    "few people carried small change. The mint in the capital had been closed since the flood, and although the "
    "ministry promised new money every spring, nothing had come of it. Merchants weighed silver as their grandfathers "
    "had done; everyone else kept accounts, and hoped that the accounts would be kept.\n\n"
    "By noon the wind had turned to the west. Clouds came up over the hills, first white and then darker, and the "
    "gulls moved from the water to the roofs. The captain of the largest ship, who had meant to leave with the tide, "
    "sent word that he would wait until the next morning. There were three reasons for this, he explained to his "
    "passengers: the weather, the cargo, and a letter that he expected from the north. He did not say which of the "
    "three weighed most, but the passengers, who had seen his face when he spoke of the letter, thought that they "
    "knew.\n\n"
    "A river carries more water in April than in August, because the snow in the mountains melts during the spring. "
    "Measurements began in 1871, when the first gauge was built below the old bridge; since then the highest level, "
    "6.4 metres, was reached on 3 April 1909, and the lowest, 0.7 metres, in the dry summer of 1947. The records were "
    "kept by hand until 1962. They show that floods have become less frequent but not less severe, and that the date "
    "of the first ice has moved by almost three weeks. Whether this is due to the reservoirs, to the climate, or to "
    "both, cannot be decided from the gauge alone.\n";

std::vector<int32_t> encode(const text::Tokenizer& t, const std::string& text) {
  return t.encode(text, {.add_special = true, .parse_special = false});
}

// At least `tokens` ids from the beginning of a text, or all of it.
std::vector<int32_t> encode_first(const std::string& path, int64_t tokens, bool lossy, const text::Tokenizer& t) {
  constexpr size_t kBytesPerToken = 32;  // more than most texts have; if not, more is read
  const auto wanted =
      static_cast<size_t>(std::min(tokens, 4 * kMostTokens)) + kLeastCalibration;  // the cut changes the last
  TextFile file(path);
  file.require_end();
  for (size_t bytes = wanted * kBytesPerToken;; bytes *= 4) {
    auto ids = encode(t, require_utf8(file.first(bytes), file.name(), lossy));
    if (ids.size() >= wanted || file.ended()) return ids;
  }
}

std::vector<int32_t> part(const std::vector<int32_t>& ids, size_t first, int64_t most) {
  const size_t last = std::min(ids.size(), first + static_cast<size_t>(most));
  return {ids.begin() + static_cast<std::ptrdiff_t>(first), ids.begin() + static_cast<std::ptrdiff_t>(last)};
}

}  // namespace

Texts read_texts(const TextChoice& c, const text::Tokenizer& t) {
  Texts out;
  std::vector<int32_t> rest;
  if (!c.calibrate.empty()) {
    const bool shared = c.evaluate && c.eval.empty();
    const int64_t calibration = std::min(c.calibration_tokens, kMostTokens);
    const int64_t wanted = calibration + (shared ? calibration / 4 + std::min(c.evaluation_tokens, kMostTokens) : 0);
    const std::vector<int32_t> ids = encode_first(c.calibrate, wanted, c.lossy_utf8, t);
    const auto n = static_cast<int64_t>(ids.size()), most = shared ? n - n / 5 : n;
    out.calibration = part(ids, 0, std::min(c.calibration_tokens, most));
    if (out.calibration.size() < kLeastCalibration) {
      fail_data("[quantize] " + c.calibrate + " has " + std::to_string(out.calibration.size()) +
                " tokens to calibrate on, at least " + std::to_string(kLeastCalibration) + " are needed");
    }
    out.calibration_use = quant::TextUse{c.calibrate, static_cast<int64_t>(out.calibration.size())};
    rest = part(ids, out.calibration.size(), c.evaluation_tokens);
  }
  if (!c.evaluate) return out;
  if (!c.eval.empty()) {
    out.evaluation = part(encode_first(c.eval, c.evaluation_tokens, c.lossy_utf8, t), 0, c.evaluation_tokens);
    out.evaluation_use.name = c.eval;
  } else if (!c.calibrate.empty()) {
    out.evaluation = std::move(rest);
    out.evaluation_use.name = c.calibrate + ", after the calibration tokens";
  } else {
    out.evaluation = part(encode(t, kBuiltIn), 0, c.evaluation_tokens);
    out.evaluation_use.name = kBuiltInName;
  }
  out.evaluation_use.tokens = static_cast<int64_t>(out.evaluation.size());
  if (out.evaluation_use.tokens < 2) fail_data("[quantize] " + out.evaluation_use.name + " has too few tokens");
  return out;
}

}  // namespace krait::cli
