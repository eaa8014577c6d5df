#include "krait/text/content_hash.h"

#include <xxhash.h>

#include <memory>

namespace krait::text {

uint64_t content_hash(const Tokenizer& t) {
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(XXH3_createState(), XXH3_freeState);
  XXH3_64bits_reset(state.get());
  for (int64_t id = 0; id < t.vocab_size(); ++id) {
    const std::string bytes = t.token_bytes(static_cast<int32_t>(id));
    const uint64_t head = bytes.size() << 1 | (t.is_special(static_cast<int32_t>(id)) ? 1 : 0);
    XXH3_64bits_update(state.get(), &head, sizeof head);
    XXH3_64bits_update(state.get(), bytes.data(), bytes.size());
  }
  const uint64_t hash = XXH3_64bits_digest(state.get());
  return hash != 0 ? hash : 1;
}

}  // namespace krait::text
