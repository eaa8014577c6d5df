#include "krait/text/jinja/parser.h"

#include <fmt/format.h>

#include <algorithm>

#include "krait/text/jinja/parse_expression.h"

namespace krait::text::jinja {
namespace {

using Kind = Stmt::Kind;

class Parser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Body run() {
    Body b = body({});
    if (peek().kind != Token::Kind::kEnd) fail(fmt::format("'{}' closes nothing", peek(1).text));
    return b;
  }

 private:
  // Statements up to a tag whose name is one of `ends`; that tag is left open: its name is the next token.
  Body body(const std::vector<std::string_view>& ends) {
    const Nest nest(*this);
    Body out;
    while (true) {
      const Token& t = peek();
      if (t.kind == Token::Kind::kEnd) {
        if (!ends.empty()) fail(fmt::format("'{}' is missing", ends.back()));
        return out;
      }
      if (t.kind == Token::Kind::kText) {
        out.push_back({Kind::kText, t.line, take().text});
      } else if (t.kind == Token::Kind::kPrintBegin) {
        take();
        Stmt s{Kind::kPrint, t.line};
        s.value = expression_or_tuple();
        end_of(Token::Kind::kPrintEnd);
        out.push_back(std::move(s));
      } else {
        const Token& name = peek(1);
        if (std::ranges::find(ends, name.text) != ends.end() && name.kind == Token::Kind::kName) {
          take();
          return out;
        }
        if (ends.empty() && (name.text.starts_with("end") || name.text.starts_with("el"))) return out;
        take();
        out.push_back(statement());
      }
    }
  }

  void end_of(Token::Kind kind) {
    if (peek().kind != kind) fail(fmt::format("'{}' does not fit here", peek().text));
    take();
  }
  void end_tag() { end_of(Token::Kind::kBlockEnd); }

  Stmt statement() {
    const Token t = take();
    Stmt s{Kind::kGroup, t.line};
    if (t.kind != Token::Kind::kName) fail("a statement is expected");
    if (t.text == "if") return if_statement(std::move(s));
    if (t.text == "for") return for_statement(std::move(s));
    if (t.text == "set") return set_statement(std::move(s));
    if (t.text == "macro") return macro_statement(std::move(s));
    if (t.text == "generation") {  // marks what a trainer learns; no effect on the text
      end_tag();
      s.body = body({"endgeneration"});
      take();
      end_tag();
      return s;
    }
    if (t.text == "break" || t.text == "continue") {
      if (loops_ == 0) fail(fmt::format("'{}' outside of a loop", t.text));
      s.kind = t.text == "break" ? Kind::kBreak : Kind::kContinue;
      end_tag();
      return s;
    }
    fail(fmt::format("the statement '{}' is not supported", t.text));
  }

  Stmt if_statement(Stmt s) {
    const Nest nest(*this);
    s.kind = Kind::kIf;
    s.value = expression_or_tuple();
    end_tag();
    s.body = body({"elif", "else", "endif"});
    const Token end = take();
    if (end.text == "elif") {
      s.otherwise.push_back(if_statement({Kind::kIf, end.line}));
      return s;
    }
    end_tag();
    if (end.text == "else") {
      s.otherwise = body({"endif"});
      take();
      end_tag();
    }
    return s;
  }

  Stmt for_statement(Stmt s) {
    s.kind = Kind::kFor;
    const bool parens = accept("(");
    do s.names.push_back(expect_identifier("a loop variable"));
    while (accept(","));
    if (parens) expect(")");
    if (!accept_name("in")) fail("'in' is expected");
    s.value = or_expression();
    if (at_operator(",")) fail("a loop over a tuple needs parentheses");
    if (accept_name("if")) s.filter = expression();
    if (at_name("recursive")) fail("recursive loops are not supported");
    end_tag();
    ++loops_;
    s.body = body({"else", "endfor"});
    --loops_;
    const Token end = take();
    end_tag();
    if (end.text == "else") {
      s.otherwise = body({"endfor"});
      take();
      end_tag();
    }
    return s;
  }

  Stmt set_statement(Stmt s) {
    s.kind = Kind::kSet;
    s.names.push_back(expect_identifier("a name"));
    if (accept(".")) {
      s.dotted = true;
      s.names.push_back(expect_identifier("an attribute"));
    }
    while (!s.dotted && accept(",")) s.names.push_back(expect_identifier("a name"));
    if (accept("=")) {
      s.value = expression_or_tuple();
      end_tag();
      return s;
    }
    if (at_operator("|")) fail("filters on a set block are not supported");
    if (s.names.size() > 1 && !s.dotted) fail("'=' is expected");
    s.kind = Kind::kSetBlock;
    end_tag();
    s.body = body({"endset"});
    take();
    end_tag();
    return s;
  }

  Stmt macro_statement(Stmt s) {
    if (loops_ > 0 || in_macro_) fail("a macro inside a loop or macro is not supported");
    s.kind = Kind::kMacro;
    s.text = expect_identifier("the macro's name");
    expect("(");
    while (!accept(")")) {
      Parameter p{expect_identifier("a parameter"), nullptr};
      if (accept("=")) p.otherwise = expression();
      s.parameters.push_back(std::move(p));
      if (!at_operator(")")) expect(",");
    }
    end_tag();
    in_macro_ = true;
    s.body = body({"endmacro"});
    in_macro_ = false;
    take();
    end_tag();
    return s;
  }

  int loops_ = 0;
  bool in_macro_ = false;
};

}  // namespace

Body parse_template(std::string_view source) { return Parser(tokenize(source)).run(); }

}  // namespace krait::text::jinja
