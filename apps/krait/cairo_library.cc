#include "cairo_library.h"

#include <dlfcn.h>

#include <string>

#include "krait/core/error.h"

namespace krait::cli {
namespace {

Cairo load() {
  void* library = ::dlopen("libcairo.so.2", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw Error(ErrorCode::kFailed,
                "[plot] libcairo.so.2 is needed to draw (Debian package libcairo2): " + std::string(::dlerror()));
  }
  Cairo c;
#define KRAIT_CAIRO_LOAD(name)                                                   \
  c.name = reinterpret_cast<decltype(c.name)>(::dlsym(library, "cairo_" #name)); \
  if (c.name == nullptr) throw Error(ErrorCode::kFailed, "[plot] libcairo.so.2 has no cairo_" #name);
  KRAIT_CAIRO_FUNCTIONS(KRAIT_CAIRO_LOAD)
#undef KRAIT_CAIRO_LOAD
  return c;
}

}  // namespace

const Cairo& cairo() {
  static const Cairo c = load();
  return c;
}

}  // namespace krait::cli
