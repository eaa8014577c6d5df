// Field numbers: sentencepiece_model.proto, messages ModelProto, SentencePiece, TrainerSpec, NormalizerSpec.
#include "krait/text/spm_model.h"

#include <fmt/format.h>

#include <cmath>

#include "krait/core/error.h"
#include "krait/text/wire_reader.h"

namespace krait::text {
namespace {

[[noreturn]] void refuse(const std::string& what, const std::string& rule) {
  fail_data(fmt::format("[sentencepiece] {}: {}", what, rule));
}

SpmPiece parse_piece(std::string_view bytes, size_t index, const std::string& what) {
  SpmPiece p;
  WireReader r(bytes, fmt::format("{}, piece {}", what, index));
  while (const auto f = r.next()) {
    if (f->number == 1) p.text = r.bytes(*f);
    if (f->number == 2) p.score = r.number(*f);
    if (f->number != 3) continue;
    const int64_t type = r.integer(*f);
    if (type < 1 || type > 6) refuse(what, fmt::format("piece {} has type {}", index, type));
    p.type = static_cast<PieceType>(type);
  }
  if (p.text.empty()) refuse(what, fmt::format("piece {} is empty", index));
  if (!std::isfinite(p.score)) refuse(what, fmt::format("piece {} has score {}", index, p.score));
  return p;
}

void parse_trainer(std::string_view bytes, SpmModel& m, const std::string& what) {
  int64_t type = 1;
  WireReader r(bytes, what + ", trainer_spec");
  while (const auto f = r.next()) {
    switch (f->number) {
      case 3:
        type = r.integer(*f);
        break;
      case 24:
        if (r.boolean(*f)) refuse(what, "treat_whitespace_as_suffix is not supported");
        break;
      case 35:
        m.byte_fallback = r.boolean(*f);
        break;
      case 44:
        m.unk_surface = r.bytes(*f);
        break;
      case 46:
        m.bos = r.bytes(*f);
        break;
      case 47:
        m.eos = r.bytes(*f);
        break;
      default:
        break;  // how the model was trained
    }
  }
  if (type == 3 || type == 4) refuse(what, fmt::format("{} models are not supported", type == 3 ? "word" : "char"));
  if (type != 1 && type != 2) refuse(what, fmt::format("model_type {} is not one", type));
  m.unigram = type == 1;
}

void parse_normalizer(std::string_view bytes, SpmModel& m, const std::string& what) {
  WireReader r(bytes, what + ", normalizer_spec");
  while (const auto f = r.next()) {
    switch (f->number) {
      case 2:
        m.charsmap = r.bytes(*f);
        break;
      case 3:
        m.add_dummy_prefix = r.boolean(*f);
        break;
      case 4:
        m.remove_extra_whitespaces = r.boolean(*f);
        break;
      case 5:
        m.escape_whitespaces = r.boolean(*f);
        break;
      default:
        break;  // its name, and the rules as text that field 2 was compiled from
    }
  }
}

}  // namespace

SpmModel parse_spm_model(std::string_view file, const std::string& what) {
  SpmModel m;
  m.unigram = true;  // the format's default, should there be no trainer_spec
  WireReader r(file, what);
  while (const auto f = r.next()) {
    switch (f->number) {
      case 1:
        m.pieces.push_back(parse_piece(r.bytes(*f), m.pieces.size(), what));
        break;
      case 2:
        parse_trainer(r.bytes(*f), m, what);
        break;
      case 3:
        parse_normalizer(r.bytes(*f), m, what);
        break;
      default:
        break;  // self tests, the denormalizer (empty in published models), extensions
    }
  }
  if (m.pieces.empty()) refuse(what, "it has no pieces");
  return m;
}

}  // namespace krait::text
