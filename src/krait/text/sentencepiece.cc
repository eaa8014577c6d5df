// SentencePiece `.model` files.
#include <fmt/format.h>

#include <algorithm>

#include "krait/core/error.h"
#include "krait/text/factories.h"
#include "krait/text/spm_tokenizer.h"

namespace krait::text {
namespace {

const SpmPiece* find_piece(const SpmModel& m, std::string_view text, int32_t& id) {
  const auto it = std::ranges::find(m.pieces, text, &SpmPiece::text);
  id = static_cast<int32_t>(it - m.pieces.begin());
  return it == m.pieces.end() ? nullptr : &*it;
}

// A token that tokenizer_config.json or its kind names must exist.
int32_t named_token(const SpmModel& m, const std::string& text, const std::string& what) {
  int32_t id = 0;
  if (find_piece(m, text, id) == nullptr) {
    fail_data(
        fmt::format("[sentencepiece] {}: the configuration beside it names token '{}', which it has not", what, text));
  }
  return id;
}

std::optional<int32_t> control_piece(const SpmModel& m, std::string_view text) {
  int32_t id = 0;
  const SpmPiece* p = find_piece(m, text, id);
  return p != nullptr && p->type == PieceType::kControl ? std::optional(id) : std::nullopt;
}

SpmOptions options_of(const SpmModel& m, const SideFiles& side, const std::string& what) {
  SpmOptions o;
  o.chat_template = side.chat_template;
  o.bos = side.bos ? std::optional(named_token(m, *side.bos, what)) : control_piece(m, m.bos);
  const auto add_eos = [&](int32_t id) {
    if (std::ranges::find(o.eos, id) == o.eos.end()) o.eos.push_back(id);
  };
  for (const std::string& text : side.eos) add_eos(named_token(m, text, what));
  if (const auto id = control_piece(m, m.eos); id && o.eos.empty()) add_eos(*id);
  for (const int32_t id : side.eos_ids) add_eos(id);
  for (const std::string_view text : turn_enders()) {
    if (const auto id = control_piece(m, text)) add_eos(*id);
  }
  o.add_bos = side.add_bos.value_or(o.bos.has_value());
  o.add_eos = side.add_eos.value_or(false);
  o.prefix_every_part = side.legacy.value_or(true);
  if (o.add_bos && !o.bos) fail_data(fmt::format("[sentencepiece] {}: add_bos_token without a BOS token", what));
  if (o.add_eos && o.eos.empty())
    fail_data(fmt::format("[sentencepiece] {}: add_eos_token without an EOS token", what));
  return o;
}

}  // namespace

std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(const std::filesystem::path& file, const SideFiles& side) {
  SpmModel m = parse_spm_model(read_whole_file(file), file.string());
  m.add_dummy_prefix = side.add_prefix_space.value_or(m.add_dummy_prefix);
  SpmOptions o = options_of(m, side, file.string());
  return std::make_unique<SpmTokenizer>(std::move(m), std::move(o));
}

}  // namespace krait::text
