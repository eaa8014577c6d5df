// ExpressionParser: the token stream and the expressions in it; the statement parser builds on it.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "krait/text/jinja/ast.h"
#include "krait/text/jinja/lexer.h"

namespace krait::text::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

 protected:
  static constexpr int kDeepest = 200;  // nesting of expressions and of statements

  ExprPtr expression();           // with `a if b else c`
  ExprPtr expression_or_tuple();  // a, b is a tuple
  ExprPtr or_expression();        // without the choice: what `for … in` iterates

  const Token& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  Token take() { return at_ + 1 < tokens_.size() ? tokens_[at_++] : tokens_.back(); }
  bool at_name(std::string_view name) const { return peek().kind == Token::Kind::kName && peek().text == name; }
  bool at_operator(std::string_view op) const { return peek().kind == Token::Kind::kOperator && peek().text == op; }
  bool accept_name(std::string_view name) { return at_name(name) && (++at_, true); }
  bool accept(std::string_view op) { return at_operator(op) && (++at_, true); }
  void expect(std::string_view op);
  std::string expect_identifier(const char* what);
  [[noreturn]] void fail(const std::string& message) const;

  struct Nest {  // counts the nesting of its scope
    explicit Nest(ExpressionParser& p) : parser(p) {
      if (++p.nesting_ > kDeepest) p.fail("nested too deep");
    }
    ~Nest() { --parser.nesting_; }
    ExpressionParser& parser;
  };

 private:
  ExprPtr make(Expr::Kind kind) const;
  ExprPtr make(Expr::Kind kind, ExprPtr a, ExprPtr b = nullptr) const;
  void add(Expr& parent, ExprPtr kid) const;

  ExprPtr and_expression();
  ExprPtr not_expression();
  ExprPtr comparison();
  ExprPtr sum();
  ExprPtr concatenation();
  ExprPtr product();
  ExprPtr unary(bool with_filters = true);
  ExprPtr primary();
  ExprPtr parenthesized();
  ExprPtr list_literal();
  ExprPtr dict_literal();
  ExprPtr postfix(ExprPtr e);
  ExprPtr subscript(ExprPtr e);
  ExprPtr filters_and_tests(ExprPtr e);
  ExprPtr filter(ExprPtr e);
  ExprPtr test(ExprPtr e);
  void arguments(Expr& call);

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
};

}  // namespace krait::text::jinja
