// The list of mixers. Adding one is a folder and a name here (tools/new_mixer.sh makes the folder).
#pragma once
#include <string_view>
#include <vector>

#include "krait/mixers/mixer.h"

#define KRAIT_MIXERS(X) X(mamba1) X(mamba2) X(mamba3) X(gated_mlp)

namespace krait {

// Throws kBadData, listing the known names, if there is none of that name.
const MixerInfo& find_mixer(std::string_view name);
std::vector<const MixerInfo*> all_mixers();

}  // namespace krait
