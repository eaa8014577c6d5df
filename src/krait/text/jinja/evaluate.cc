// Expressions.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "krait/text/jinja/interpreter.h"
#include "krait/text/jinja/nest.h"

namespace krait::text::jinja {

using Kind = Expr::Kind;

Value Interpreter::evaluate(const Expr& e) {
  const Nest nest(ctx_);
  ctx_.line = e.line;
  const auto kid = [&](size_t i) { return evaluate(*e.kids[i]); };
  switch (e.kind) {
    case Kind::kLiteral:
      return e.literal;
    case Kind::kName:
      return name(e);
    case Kind::kList:
      return sequence(e, false);
    case Kind::kTuple:
      return sequence(e, true);
    case Kind::kDict:
      return dict(e);
    case Kind::kNot:
      return Value(!truth(kid(0)));
    case Kind::kNegate:
    case Kind::kPlus: {
      const Value v = kid(0);
      if (!v.is_number()) ctx_.fail(fmt::format("a sign before a {}", v.type_name()));
      if (e.kind == Kind::kPlus) return v;
      if (const double* d = v.get<double>()) return Value(-*d);
      return integer_arithmetic('-', false, 0, v.is_integer() ? *v.get<int64_t>() : static_cast<int64_t>(v.number()));
    }
    case Kind::kAnd: {
      Value a = kid(0);
      return truth(a) ? kid(1) : a;
    }
    case Kind::kOr: {
      Value a = kid(0);
      return truth(a) ? a : kid(1);
    }
    case Kind::kChoice:
      if (truth(kid(0))) return kid(1);
      return e.kids[2] ? kid(2) : Value::undefined("the other side of an if without else");
    case Kind::kArithmetic:
      return arithmetic(e);
    case Kind::kConcat:
      return concat(e);
    case Kind::kCompare:
      return Value(compare(e));
    case Kind::kAttribute:
      return attribute(ctx_, kid(0), e.text);
    case Kind::kItem: {
      const Value obj = kid(0);
      return item(ctx_, obj, kid(1));
    }
    case Kind::kSlice:
      return slice(e);
    case Kind::kCall:
      return call(e);
    case Kind::kFilter: {
      const Value subject = kid(0);
      return apply_filter(ctx_, e.text, subject, arguments(e, e.text));
    }
    case Kind::kTest: {
      const Value subject = kid(0);
      return Value(apply_test(ctx_, e.text, subject, arguments(e, e.text)) != e.negated);
    }
  }
  ctx_.fail("an expression of an unknown kind");
}

Value Interpreter::name(const Expr& e) const {
  const auto in = [&](const Entries& scope) -> const Value* {
    for (auto it = scope.rbegin(); it != scope.rend(); ++it) {
      if (it->first == e.text) return &it->second;
    }
    return nullptr;
  };
  for (size_t i = scopes_.size(); i-- > base_;) {
    if (const Value* v = in(scopes_[i])) return *v;
  }
  if (const Value* v = base_ > 0 ? in(scopes_[0]) : nullptr) return *v;
  for (const char* builtin : {"range", "dict", "namespace", "raise_exception"}) {
    if (e.text == builtin) return Value(Builtin{e.text});
  }
  return Value::undefined("'" + e.text + "'");
}

Value Interpreter::sequence(const Expr& e, bool tuple) {
  Items items;
  for (const ExprPtr& kid : e.kids) items.push_back(evaluate(*kid));
  return Value::list(ctx_, std::move(items), tuple);
}

Value Interpreter::dict(const Expr& e) {
  Entries entries;
  for (size_t i = 0; i < e.kids.size(); i += 2) {
    const Value key = evaluate(*e.kids[i]);
    if (key.string() == nullptr) ctx_.fail(fmt::format("a dict key that is a {} is not supported", key.type_name()));
    entries.emplace_back(*key.string(), evaluate(*e.kids[i + 1]));
  }
  return Value::dict(ctx_, std::move(entries));
}

Value Interpreter::integer_arithmetic(char op, bool floor, int64_t a, int64_t b) const {
  int64_t r = 0;
  bool overflow = false;
  if ((op == '/' || op == '%') && b == 0) ctx_.fail("division by zero");
  switch (op) {
    case '+':
      overflow = __builtin_add_overflow(a, b, &r);
      break;
    case '-':
      overflow = __builtin_sub_overflow(a, b, &r);
      break;
    case '*':
      overflow = __builtin_mul_overflow(a, b, &r);
      break;
    case '/':
      if (!floor) return Value(static_cast<double>(a) / static_cast<double>(b));
      overflow = a == INT64_MIN && b == -1;
      if (!overflow) r = a / b - (a % b != 0 && (a < 0) != (b < 0));
      break;
    default:  // Python: the sign of the divisor
      r = b == -1 ? 0 : a % b;
      if (r != 0 && (r < 0) != (b < 0)) r += b;
  }
  if (overflow) ctx_.fail(fmt::format("{} {} {} overflows", a, op, b));
  return Value(r);
}

Value Interpreter::arithmetic(const Expr& e) {
  const Value a = evaluate(*e.kids[0]), b = evaluate(*e.kids[1]);
  const char op = e.text[0];
  const bool floor = e.text == "//";
  if (a.is_number() && b.is_number()) {
    if (!a.get<double>() && !b.get<double>()) {
      const auto integer = [](const Value& v) {
        return v.is_integer() ? *v.get<int64_t>() : static_cast<int64_t>(v.number());
      };
      return integer_arithmetic(op, floor, integer(a), integer(b));
    }
    const double x = a.number(), y = b.number();
    if ((op == '/' || op == '%') && y == 0) ctx_.fail("division by zero");
    switch (op) {
      case '+':
        return Value(x + y);
      case '-':
        return Value(x - y);
      case '*':
        return Value(x * y);
      case '/':
        return Value(floor ? std::floor(x / y) : x / y);
      default:
        return Value(x - y * std::floor(x / y));
    }
  }
  if (op == '+' && a.string() != nullptr && b.string() != nullptr) {
    ctx_.spend_text(a.string()->size() + b.string()->size());
    return Value(*a.string() + *b.string());
  }
  if (op == '+' && a.as_list() != nullptr && b.as_list() != nullptr && a.as_list()->tuple == b.as_list()->tuple) {
    Items items = a.as_list()->items;
    items.insert(items.end(), b.as_list()->items.begin(), b.as_list()->items.end());
    return Value::list(ctx_, std::move(items), a.as_list()->tuple);
  }
  if (op == '*' && ((a.string() != nullptr && b.is_integer()) || (a.is_integer() && b.string() != nullptr))) {
    const std::string& s = a.string() != nullptr ? *a.string() : *b.string();
    const int64_t n = std::max<int64_t>(0, a.is_integer() ? *a.get<int64_t>() : *b.get<int64_t>());
    std::string out;
    for (int64_t i = 0; i < n; ++i) {
      ctx_.spend_text(s.size());
      out += s;
    }
    return Value(std::move(out));
  }
  for (const Value* v : {&a, &b}) {
    if (v->is_undefined()) ctx_.fail(v->get<Undefined>()->what + " is undefined");
  }
  ctx_.fail(fmt::format("{} {} {} has no meaning", a.type_name(), e.text, b.type_name()));
}

Value Interpreter::concat(const Expr& e) {
  std::string out;
  for (const ExprPtr& kid : e.kids) out += to_text(ctx_, evaluate(*kid));
  ctx_.spend_text(out.size());
  return Value(std::move(out));
}

bool Interpreter::compare(const Expr& e) {
  Value left = evaluate(*e.kids[0]);
  for (size_t i = 0; i < e.operators.size(); ++i) {
    Value right = evaluate(*e.kids[i + 1]);
    const std::string& op = e.operators[i];
    const bool holds = op == "=="       ? equal(ctx_, left, right)
                       : op == "!="     ? !equal(ctx_, left, right)
                       : op == "<"      ? less(ctx_, left, right)
                       : op == ">"      ? less(ctx_, right, left)
                       : op == "<="     ? !less(ctx_, right, left)
                       : op == ">="     ? !less(ctx_, left, right)
                       : op == "not in" ? !contains(ctx_, right, left)
                                        : contains(ctx_, right, left);
    if (!holds) return false;
    left = std::move(right);
  }
  return true;
}

// Python's rules: a bound counts from the end if negative and is clamped.
Value Interpreter::slice(const Expr& e) {
  const Value obj = evaluate(*e.kids[0]);
  const std::string* s = obj.string();
  if (s == nullptr && obj.as_list() == nullptr) ctx_.fail(fmt::format("a slice of a {}", obj.type_name()));
  const Items all = iterate(ctx_, obj);
  const auto n = static_cast<int64_t>(all.size());
  const auto bound = [&](size_t i, int64_t otherwise) {
    if (!e.kids[i]) return otherwise;
    const Value v = evaluate(*e.kids[i]);
    if (v.is_none()) return otherwise;
    if (!v.is_integer()) ctx_.fail(fmt::format("a slice bound is a {}", v.type_name()));
    return *v.get<int64_t>();
  };
  const int64_t step = bound(3, 1);
  if (step == 0 || step == INT64_MIN) ctx_.fail(fmt::format("a slice with step {}", step));
  const int64_t lowest = step > 0 ? 0 : -1, highest = step > 0 ? n : n - 1;
  const auto place = [&](size_t i, int64_t otherwise) {
    if (!e.kids[i]) return otherwise;
    const int64_t v = bound(i, INT64_MIN);
    if (v == INT64_MIN) return otherwise;
    return std::clamp(v < 0 ? v + n : v, lowest, highest);
  };
  const int64_t start = place(1, step > 0 ? 0 : n - 1), stop = place(2, step > 0 ? n : -1);
  Items items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop; i += step) {
    items.push_back(all[static_cast<size_t>(i)]);
    if (step > n || step < -n) break;
  }
  if (s == nullptr) return Value::list(ctx_, std::move(items), obj.as_list()->tuple);
  std::string out;
  for (const Value& c : items) out += *c.string();
  return Value(std::move(out));
}

Arguments Interpreter::arguments(const Expr& e, std::string of) {
  Items positional;
  Entries named;
  for (size_t i = 1; i < e.kids.size(); ++i) positional.push_back(evaluate(*e.kids[i]));
  for (const auto& [key, value] : e.named) named.emplace_back(key, evaluate(*value));
  return {std::move(positional), std::move(named), std::move(of)};
}

Value Interpreter::call(const Expr& e) {
  const Expr& callee = *e.kids[0];
  if (callee.kind == Kind::kAttribute) {
    const Value obj = evaluate(*callee.kids[0]);
    const Arguments args = arguments(e, callee.text);
    ctx_.line = e.line;
    Value result;
    if (call_method(ctx_, obj, callee.text, args, result)) return result;
    if (obj.is_undefined())
      ctx_.fail(fmt::format("{} is undefined; its '{}' was called", obj.get<Undefined>()->what, callee.text));
    const DictBox* d = obj.as_dict();
    if (d != nullptr && d->kind == DictKind::kLoop && callee.text == "cycle") return cycle(*d, args);
    ctx_.fail(fmt::format("'{}' of a {} is not supported", callee.text, obj.type_name()));
  }
  const Value function = evaluate(callee);
  const Arguments args = arguments(e, callee.kind == Kind::kName ? callee.text : "the function");
  ctx_.line = e.line;
  if (const Builtin* b = function.get<Builtin>()) return call_builtin(b->name, args);
  if (const Macro* const* m = function.get<const Macro*>()) return call_macro(*(*m)->definition, args);
  if (function.is_undefined() && callee.text == "strftime_now") {
    ctx_.fail("strftime_now is not supported: what a template writes depends on the messages only");
  }
  if (function.is_undefined()) ctx_.fail(function.get<Undefined>()->what + " is undefined and was called");
  ctx_.fail(fmt::format("a {} was called", function.type_name()));
}

Value Interpreter::call_builtin(const std::string& name, const Arguments& args) {
  if (name == "raise_exception") {
    args.allow(ctx_, {"message"});
    ctx_.fail(to_text(ctx_, args.need(ctx_, 0, "message")));
  }
  if (name == "range") {
    args.allow(ctx_, {"start", "stop", "step"});
    const int64_t first = args.integer(ctx_, 0, "start", 0), step = args.integer(ctx_, 2, "step", 1);
    const int64_t start = args.size() > 1 ? first : 0,
                  stop = args.size() > 1 ? args.integer(ctx_, 1, "stop", 0) : first;
    if (step == 0) ctx_.fail("range with step 0");
    Items items;
    for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
      ctx_.spend(1);
      items.emplace_back(i);
      if (__builtin_add_overflow(i, step, &i)) break;
    }
    return Value::list(ctx_, std::move(items));
  }
  Entries entries;
  if (args.size() > 1) ctx_.fail(name + " takes at most one dict");
  if (args.size() == 1) {
    const DictBox* d = args.positional()[0].as_dict();
    if (d == nullptr || d->kind != DictKind::kPlain) ctx_.fail(name + " needs a dict or named arguments");
    entries = d->entries;
  }
  entries.insert(entries.end(), args.named().begin(), args.named().end());
  return Value::dict(ctx_, std::move(entries), name == "dict" ? DictKind::kPlain : DictKind::kNamespace);
}

Value Interpreter::call_macro(const Stmt& macro, const Arguments& args) {
  Entries scope;
  if (args.size() > macro.parameters.size()) {
    ctx_.fail(fmt::format("{} takes {} arguments, {} given", macro.text, macro.parameters.size(), args.size()));
  }
  for (const auto& [key, v] : args.named()) {
    if (std::ranges::find(macro.parameters, key, &Parameter::name) == macro.parameters.end()) {
      ctx_.fail(fmt::format("{} has no argument '{}'", macro.text, key));
    }
  }
  const size_t base = base_;
  scopes_.emplace_back();
  base_ = scopes_.size() - 1;
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const Parameter& p = macro.parameters[i];
    const Value* given = args.find(i, p.name);
    Value v = given != nullptr ? *given : p.otherwise ? evaluate(*p.otherwise) : Value::undefined("'" + p.name + "'");
    scopes_.back().emplace_back(p.name, std::move(v));
  }
  Value result(captured(macro.body));
  scopes_.pop_back();
  base_ = base;
  return result;
}

Value Interpreter::cycle(const DictBox& loop, const Arguments& args) {
  if (args.size() == 0) ctx_.fail("cycle needs arguments");
  const int64_t index = *loop.find("index0")->get<int64_t>();
  return args.positional()[static_cast<size_t>(index) % args.size()];
}

}  // namespace krait::text::jinja
