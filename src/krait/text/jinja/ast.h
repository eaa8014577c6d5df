// A compiled template: expressions and statements.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "krait/text/jinja/value.h"

namespace krait::text::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  enum class Kind {
    kLiteral,
    kName,        // text
    kList,        // kids
    kTuple,       // kids
    kDict,        // kids: key, value, key, value, …
    kNot,         // kids[0]
    kNegate,      // kids[0]
    kPlus,        // kids[0]
    kAnd,         // kids[0], kids[1]
    kOr,          // kids[0], kids[1]
    kChoice,      // kids: condition, then, otherwise (may be null)
    kArithmetic,  // text: + - * / // %; kids[0], kids[1]
    kConcat,      // kids
    kCompare,     // operators[i] between kids[i] and kids[i + 1]
    kAttribute,   // kids[0].text
    kItem,        // kids[0][kids[1]]
    kSlice,       // kids[0][kids[1]:kids[2]:kids[3]], each may be null
    kCall,        // kids[0](kids[1], …, named)
    kFilter,      // kids[0] | text(kids[1], …, named)
    kTest,        // kids[0] is text(kids[1], …); negated
  };
  Kind kind;
  int line;
  int depth = 1;  // of the tree below, itself included
  std::string text{};
  Value literal{};
  std::vector<ExprPtr> kids{};
  std::vector<std::pair<std::string, ExprPtr>> named{};
  std::vector<std::string> operators{};
  bool negated = false;
};

struct Stmt;
using Body = std::vector<Stmt>;

struct Parameter {
  std::string name;
  ExprPtr otherwise;  // null: none
};

struct Stmt {
  enum class Kind { kText, kPrint, kIf, kFor, kSet, kSetBlock, kMacro, kGroup, kBreak, kContinue };
  Kind kind;
  int line;
  std::string text{};                // kText; name of a macro
  std::vector<std::string> names{};  // targets of for and set; {"ns", "x"} with `dotted` for ns.x
  bool dotted = false;
  ExprPtr value{};   // printed, condition, iterated, assigned
  ExprPtr filter{};  // for … if filter
  Body body{}, otherwise{};
  std::vector<Parameter> parameters{};
};

struct Macro {
  const Stmt* definition;
};

}  // namespace krait::text::jinja
