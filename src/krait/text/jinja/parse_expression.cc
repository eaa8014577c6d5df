#include "krait/text/jinja/parse_expression.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "krait/core/error.h"
#include "krait/text/jinja/functions.h"

namespace krait::text::jinja {

using Kind = Expr::Kind;

void ExpressionParser::fail(const std::string& message) const {
  fail_data(fmt::format("[chat template] line {}: {}", peek().line, message));
}

void ExpressionParser::expect(std::string_view op) {
  if (!accept(op)) {
    const Token& t = peek();
    fail(fmt::format("'{}' is expected, {} found", op, t.text.empty() ? "the end of the tag" : "'" + t.text + "'"));
  }
}

std::string ExpressionParser::expect_identifier(const char* what) {
  if (peek().kind != Token::Kind::kName) fail(fmt::format("{} is expected", what));
  return take().text;
}

ExprPtr ExpressionParser::make(Kind kind) const { return std::make_unique<Expr>(Expr{kind, peek().line}); }

ExprPtr ExpressionParser::make(Kind kind, ExprPtr a, ExprPtr b) const {
  ExprPtr e = make(kind);
  add(*e, std::move(a));
  if (b) add(*e, std::move(b));
  return e;
}

void ExpressionParser::add(Expr& parent, ExprPtr kid) const {
  if (kid) parent.depth = std::max(parent.depth, kid->depth + 1);
  if (parent.depth > kDeepest) fail("an expression is nested too deep");
  parent.kids.push_back(std::move(kid));
}

ExprPtr ExpressionParser::expression_or_tuple() {
  ExprPtr first = expression();
  if (!at_operator(",")) return first;
  ExprPtr tuple = make(Kind::kTuple, std::move(first));
  while (accept(",")) {
    if (peek().kind == Token::Kind::kBlockEnd || peek().kind == Token::Kind::kPrintEnd || at_operator(")")) break;
    add(*tuple, expression());
  }
  return tuple;
}

ExprPtr ExpressionParser::expression() {
  const Nest nest(*this);
  ExprPtr e = or_expression();
  while (accept_name("if")) {
    ExprPtr choice = make(Kind::kChoice, or_expression(), std::move(e));
    add(*choice, accept_name("else") ? expression() : nullptr);
    e = std::move(choice);
  }
  return e;
}

ExprPtr ExpressionParser::or_expression() {
  ExprPtr e = and_expression();
  while (accept_name("or")) e = make(Kind::kOr, std::move(e), and_expression());
  return e;
}

ExprPtr ExpressionParser::and_expression() {
  ExprPtr e = not_expression();
  while (accept_name("and")) e = make(Kind::kAnd, std::move(e), not_expression());
  return e;
}

ExprPtr ExpressionParser::not_expression() {
  const Nest nest(*this);
  if (accept_name("not")) return make(Kind::kNot, not_expression());
  return comparison();
}

ExprPtr ExpressionParser::comparison() {
  ExprPtr e = sum();
  ExprPtr compare;
  while (true) {
    std::string op;
    if (peek().kind == Token::Kind::kOperator) {
      for (const char* o : {"==", "!=", "<=", ">=", "<", ">"}) {
        if (at_operator(o)) op = o;
      }
    } else if (at_name("in")) {
      op = "in";
    } else if (at_name("not") && peek(1).kind == Token::Kind::kName && peek(1).text == "in") {
      op = "not in";
      take();
    }
    if (op.empty()) return compare ? std::move(compare) : std::move(e);
    take();
    if (!compare) compare = make(Kind::kCompare, std::move(e));
    compare->operators.push_back(op);
    add(*compare, sum());
  }
}

ExprPtr ExpressionParser::sum() {
  ExprPtr e = concatenation();
  while (at_operator("+") || at_operator("-")) {
    const std::string op = take().text;
    e = make(Kind::kArithmetic, std::move(e), concatenation());
    e->text = op;
  }
  return e;
}

ExprPtr ExpressionParser::concatenation() {
  ExprPtr e = product();
  if (!at_operator("~")) return e;
  e = make(Kind::kConcat, std::move(e));
  while (accept("~")) add(*e, product());
  return e;
}

ExprPtr ExpressionParser::product() {
  ExprPtr e = unary();
  while (at_operator("*") || at_operator("/") || at_operator("//") || at_operator("%")) {
    const std::string op = take().text;
    e = make(Kind::kArithmetic, std::move(e), unary());
    e->text = op;
  }
  if (at_operator("**")) fail("the operator ** is not supported");
  return e;
}

ExprPtr ExpressionParser::unary(bool with_filters) {
  const Nest nest(*this);
  ExprPtr e;
  if (accept("-")) {
    e = make(Kind::kNegate, unary(false));
  } else if (accept("+")) {
    e = make(Kind::kPlus, unary(false));
  } else {
    e = primary();
  }
  e = postfix(std::move(e));
  return with_filters ? filters_and_tests(std::move(e)) : std::move(e);
}

ExprPtr ExpressionParser::primary() {
  const Nest nest(*this);
  if (accept("(")) return parenthesized();
  if (accept("[")) return list_literal();
  if (accept("{")) return dict_literal();
  ExprPtr e = make(Kind::kLiteral);
  const Token t = take();
  switch (t.kind) {
    case Token::Kind::kString: {
      std::string s = t.text;
      while (peek().kind == Token::Kind::kString) s += take().text;
      e->literal = Value(std::move(s));
      return e;
    }
    case Token::Kind::kInteger: {
      int64_t i = 0;
      if (std::from_chars(t.text.data(), t.text.data() + t.text.size(), i).ec != std::errc()) {
        fail(fmt::format("the number {} is too large", t.text));
      }
      e->literal = Value(i);
      return e;
    }
    case Token::Kind::kFloat:
      e->literal = Value(std::stod(t.text));
      return e;
    case Token::Kind::kName:
      if (t.text == "true" || t.text == "True" || t.text == "false" || t.text == "False") {
        e->literal = Value(t.text[0] == 't' || t.text[0] == 'T');
      } else if (t.text != "none" && t.text != "None") {
        e->kind = Kind::kName;
        e->text = t.text;
      }
      return e;
    default:
      fail(t.text.empty() ? "an expression is expected" : fmt::format("'{}' does not begin an expression", t.text));
  }
}

ExprPtr ExpressionParser::parenthesized() {
  if (accept(")")) return make(Kind::kTuple);
  ExprPtr e = expression_or_tuple();
  expect(")");
  return e;
}

ExprPtr ExpressionParser::list_literal() {
  ExprPtr list = make(Kind::kList);
  while (!accept("]")) {
    add(*list, expression());
    if (!at_operator("]")) expect(",");
  }
  return list;
}

ExprPtr ExpressionParser::dict_literal() {
  ExprPtr dict = make(Kind::kDict);
  while (!accept("}")) {
    add(*dict, expression());
    expect(":");
    add(*dict, expression());
    if (!at_operator("}")) expect(",");
  }
  return dict;
}

ExprPtr ExpressionParser::postfix(ExprPtr e) {
  while (true) {
    if (accept(".")) {
      const bool index = peek().kind == Token::Kind::kInteger;
      ExprPtr key = make(Kind::kLiteral);
      if (index) key = primary();
      ExprPtr outer = make(index ? Kind::kItem : Kind::kAttribute, std::move(e), index ? std::move(key) : nullptr);
      if (!index) outer->text = expect_identifier("an attribute");
      e = std::move(outer);
    } else if (accept("[")) {
      e = subscript(std::move(e));
    } else if (accept("(")) {
      e = make(Kind::kCall, std::move(e));
      arguments(*e);
    } else {
      return e;
    }
  }
}

ExprPtr ExpressionParser::subscript(ExprPtr e) {
  ExprPtr first = at_operator(":") ? nullptr : expression();
  if (first && accept("]")) return make(Kind::kItem, std::move(e), std::move(first));
  ExprPtr slice = make(Kind::kSlice, std::move(e));
  add(*slice, std::move(first));
  for (int i = 0; i < 2; ++i) {
    const bool colon = accept(":");
    add(*slice, colon && !at_operator(":") && !at_operator("]") ? expression() : nullptr);
  }
  expect("]");
  return slice;
}

void ExpressionParser::arguments(Expr& call) {
  while (!accept(")")) {
    if (at_operator("*") || at_operator("**")) fail("arguments from a list or dict are not supported");
    if (peek().kind == Token::Kind::kName && peek(1).kind == Token::Kind::kOperator && peek(1).text == "=") {
      const std::string name = take().text;
      take();
      call.named.emplace_back(name, expression());
      call.depth = std::max(call.depth, call.named.back().second->depth + 1);
    } else {
      if (!call.named.empty()) fail("a positional argument after a named one");
      add(call, expression());
    }
    if (!at_operator(")")) expect(",");
  }
}

ExprPtr ExpressionParser::filters_and_tests(ExprPtr e) {
  while (true) {
    if (accept("|")) {
      e = filter(std::move(e));
    } else if (accept_name("is")) {
      e = test(std::move(e));
    } else if (accept("(")) {
      e = make(Kind::kCall, std::move(e));
      arguments(*e);
    } else {
      return e;
    }
  }
}

ExprPtr ExpressionParser::filter(ExprPtr e) {
  ExprPtr f = make(Kind::kFilter, std::move(e));
  f->text = expect_identifier("a filter");
  if (!is_filter(f->text)) fail(fmt::format("the filter '{}' is not supported", f->text));
  if (accept("(")) arguments(*f);
  return f;
}

ExprPtr ExpressionParser::test(ExprPtr e) {
  ExprPtr t = make(Kind::kTest, std::move(e));
  t->negated = accept_name("not");
  t->text = peek().kind == Token::Kind::kOperator ? take().text : expect_identifier("a test");
  if (!is_test(t->text)) fail(fmt::format("the test '{}' is not supported", t->text));
  if (accept("(")) {
    arguments(*t);
    return t;
  }
  const Token& next = peek();
  const bool word = next.kind == Token::Kind::kName && next.text != "else" && next.text != "or" && next.text != "and" &&
                    next.text != "if" && next.text != "is" && next.text != "in" && next.text != "not";
  if (word || next.kind == Token::Kind::kString || next.kind == Token::Kind::kInteger ||
      next.kind == Token::Kind::kFloat || at_operator("[") || at_operator("{")) {
    add(*t, postfix(primary()));
  }
  return t;
}

}  // namespace krait::text::jinja
