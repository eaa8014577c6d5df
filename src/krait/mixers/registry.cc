#include "krait/mixers/registry.h"

#include <string>

#include "krait/core/error.h"

namespace krait {

// Each folder NAME defines NAME_mixer().
#define KRAIT_DECLARE(name) const MixerInfo& name##_mixer();
KRAIT_MIXERS(KRAIT_DECLARE)
#undef KRAIT_DECLARE

std::vector<const MixerInfo*> all_mixers() {
#define KRAIT_ENTRY(name) &name##_mixer(),
  return {KRAIT_MIXERS(KRAIT_ENTRY)};
#undef KRAIT_ENTRY
}

const MixerInfo& find_mixer(std::string_view name) {
  std::string known;
  for (const MixerInfo* m : all_mixers()) {
    if (name == m->name) return *m;
    known += std::string(known.empty() ? "" : ", ") + m->name;
  }
  fail_data("[mixers] there is no mixer '" + std::string(name) + "'; known: " + known);
}

}  // namespace krait
