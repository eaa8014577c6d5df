// The parts of a tokenizer.json between text and pieces, and from tokens back to text.
#pragma once
#include <memory>
#include <vector>

#include "krait/text/json_fields.h"
#include "krait/text/pipeline.h"

namespace krait::text {

// Each appends what the JSON object describes; a type or field that is not known throws kBadData naming it.
void read_normalizer(JsonFields fields, TextNormalizer& out);
void read_pre_tokenizer(JsonFields fields, std::vector<std::unique_ptr<PreTokenizer>>& out);
void read_post_processor(JsonFields fields, std::vector<int32_t>& before, std::vector<int32_t>& after);
TokenDecoder read_decoder(JsonFields fields, bool& joins_bytes);  // see Pipeline
TokenDecoder no_decoder();                                        // tokens with spaces between them

}  // namespace krait::text
