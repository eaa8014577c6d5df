// Statements.
#include <fmt/format.h>

#include "krait/text/jinja/interpreter.h"
#include "krait/text/jinja/nest.h"
#include "krait/text/jinja/render.h"

namespace krait::text::jinja {

using Kind = Stmt::Kind;

void Interpreter::append(std::string_view text) {
  ctx_.spend_text(text.size());
  out_ += text;
}

std::string Interpreter::captured(const Body& body) {
  std::string outer;
  std::swap(outer, out_);
  execute(body);
  std::swap(outer, out_);
  return outer;
}

Interpreter::Flow Interpreter::execute(const Body& body) {
  for (const Stmt& s : body) {
    if (const Flow f = execute(s); f != Flow::kNext) return f;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute(const Stmt& s) {
  const Nest nest(ctx_);
  ctx_.line = s.line;
  switch (s.kind) {
    case Kind::kText:
      append(s.text);
      return Flow::kNext;
    case Kind::kPrint:
      append(to_text(ctx_, evaluate(*s.value)));
      return Flow::kNext;
    case Kind::kIf:
      return execute(truth(evaluate(*s.value)) ? s.body : s.otherwise);
    case Kind::kFor:
      return loop(s);
    case Kind::kSet:
    case Kind::kSetBlock:
      set_statement(s);
      return Flow::kNext;
    case Kind::kMacro:
      macros_.push_back(std::make_unique<Macro>(Macro{&s}));
      set(s.text, Value(macros_.back().get()));
      return Flow::kNext;
    case Kind::kGroup:
      return execute(s.body);
    case Kind::kBreak:
      return Flow::kBreak;
    case Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

void Interpreter::set(const std::string& name, Value v) {
  for (auto& [key, old] : scopes_.back()) {
    if (key == name) {
      old = std::move(v);
      return;
    }
  }
  scopes_.back().emplace_back(name, std::move(v));
}

void Interpreter::assign(const std::vector<std::string>& names, const Value& v) {
  if (names.size() == 1) return set(names[0], v);
  const Items items = iterate(ctx_, v);
  if (items.size() != names.size()) ctx_.fail(fmt::format("{} values for {} names", items.size(), names.size()));
  for (size_t i = 0; i < names.size(); ++i) set(names[i], items[i]);
}

void Interpreter::set_statement(const Stmt& s) {
  Value v;
  if (s.kind == Kind::kSet) {
    v = evaluate(*s.value);
  } else {
    scopes_.emplace_back();  // what the block sets stays inside
    v = Value(captured(s.body));
    scopes_.pop_back();
  }
  if (!s.dotted) return assign(s.names, v);
  const Value target = [&] {
    Expr name{Expr::Kind::kName, s.line};
    name.text = s.names[0];
    return this->name(name);
  }();
  DictBox* d = target.as_namespace();
  if (d == nullptr) ctx_.fail(fmt::format("'{}' is no namespace: its attributes cannot be set", s.names[0]));
  d->set(ctx_, s.names[1], std::move(v));
}

Interpreter::Flow Interpreter::loop(const Stmt& s) {
  Items items = iterate(ctx_, evaluate(*s.value));
  scopes_.emplace_back();
  if (s.filter) {
    Items kept;
    for (const Value& v : items) {
      scopes_.back().clear();
      assign(s.names, v);
      if (truth(evaluate(*s.filter))) kept.push_back(v);
    }
    items = std::move(kept);
  }
  const auto n = static_cast<int64_t>(items.size());
  for (int64_t i = 0; i < n; ++i) {
    scopes_.back().clear();  // what the body sets does not reach the next round
    const auto at = [&](int64_t j) {
      return j >= 0 && j < n ? items[static_cast<size_t>(j)] : Value::undefined("an item beyond the loop");
    };
    set("loop", Value::dict(ctx_,
                            {{"index", Value(i + 1)},
                             {"index0", Value(i)},
                             {"revindex", Value(n - i)},
                             {"revindex0", Value(n - i - 1)},
                             {"first", Value(i == 0)},
                             {"last", Value(i == n - 1)},
                             {"length", Value(n)},
                             {"previtem", at(i - 1)},
                             {"nextitem", at(i + 1)}},
                            DictKind::kLoop));
    assign(s.names, items[static_cast<size_t>(i)]);
    if (execute(s.body) == Flow::kBreak) break;
  }
  scopes_.pop_back();
  return n == 0 ? execute(s.otherwise) : Flow::kNext;
}

std::string render_template(const Body& body, Context& ctx, Entries variables) {
  Interpreter run(ctx, std::move(variables));
  run.execute(body);
  return std::move(run.out());
}

}  // namespace krait::text::jinja
