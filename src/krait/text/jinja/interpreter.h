// Interpreter: evaluates expressions and executes statements over a stack of scopes.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "krait/text/jinja/ast.h"
#include "krait/text/jinja/functions.h"

namespace krait::text::jinja {

class Interpreter {
 public:
  Interpreter(Context& ctx, Entries variables) : ctx_(ctx), scopes_{std::move(variables)} {}

  // Appends to out().
  enum class Flow { kNext, kBreak, kContinue };
  Flow execute(const Body&);
  std::string& out() { return out_; }

 private:
  struct Nest;  // counts nesting and restores it

  Value evaluate(const Expr&);
  Value name(const Expr&) const;
  Value sequence(const Expr&, bool tuple);
  Value dict(const Expr&);
  Value arithmetic(const Expr&);
  Value integer_arithmetic(char op, bool floor, int64_t a, int64_t b) const;
  Value concat(const Expr&);
  bool compare(const Expr&);
  Value slice(const Expr&);
  Value call(const Expr&);
  Value call_builtin(const std::string& name, const Arguments&);
  Value call_macro(const Stmt& macro, const Arguments&);
  Value cycle(const DictBox& loop, const Arguments&);
  Arguments arguments(const Expr&, std::string of);

  void append(std::string_view text);
  Flow execute(const Stmt&);
  Flow loop(const Stmt&);
  void assign(const std::vector<std::string>& names, const Value&);
  void set(const std::string& name, Value);
  void set_statement(const Stmt&);
  std::string captured(const Body&);  // what a body writes

  Context& ctx_;
  std::vector<Entries> scopes_;  // [0]: the template's own; then loops, or a macro's
  size_t base_ = 0;              // names are looked up from the top down to here, then in scope 0
  std::string out_;
  std::vector<std::unique_ptr<Macro>> macros_;
};

}  // namespace krait::text::jinja
