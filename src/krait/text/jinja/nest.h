// Counts how deep the interpreter has gone into a template.
#pragma once
#include "krait/text/jinja/interpreter.h"

namespace krait::text::jinja {

struct Interpreter::Nest {
  explicit Nest(Context& c) : ctx(c) {
    ctx.spend(1);
    if (++ctx.nesting > Context::kNesting) ctx.fail("statements, expressions and macro calls are nested too deep");
  }
  ~Nest() { --ctx.nesting; }
  Nest(const Nest&) = delete;
  Nest& operator=(const Nest&) = delete;
  Context& ctx;
};

}  // namespace krait::text::jinja
