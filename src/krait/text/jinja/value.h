// Values of the template language: those of Python that templates meet, immutable except for namespaces.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace krait::text::jinja {

// What a rendering may still spend, and where it stands. Everything that can grow is charged here.
struct Context {
  static constexpr int64_t kSteps = 20'000'000;  // nodes, elements and 16-byte pieces of text handled
  static constexpr int kNesting = 400;           // of statements, expressions and macro calls together
  int line = 1;
  int64_t steps = kSteps;
  int nesting = 0;

  [[noreturn]] void fail(const std::string& message) const;  // kBadData "[chat template] line N: message"
  void spend(int64_t n) {
    if ((steps -= n) < 0) fail("the template takes too many steps");
  }
  void spend_text(size_t bytes) { spend(1 + static_cast<int64_t>(bytes / 16)); }
};

class Value;
struct Macro;
using Items = std::vector<Value>;
using Entries = std::vector<std::pair<std::string, Value>>;

struct ListBox;
struct DictBox;
enum class DictKind : uint8_t { kPlain, kNamespace, kLoop };

struct Undefined {
  std::string what;  // "'name'" or "attribute 'name'", for messages
};
struct None {};
struct Builtin {  // a function of the language
  std::string name;
};

class Value {
 public:
  Value() : v_(None{}) {}
  Value(bool b) : v_(b) {}
  Value(int64_t i) : v_(i) {}
  Value(double d) : v_(d) {}
  Value(std::string s) : v_(std::move(s)) {}
  Value(std::string_view s) : v_(std::string(s)) {}
  Value(const char* s) : v_(std::string(s)) {}
  explicit Value(Builtin b) : v_(std::move(b)) {}
  explicit Value(const Macro* m) : v_(m) {}
  static Value undefined(std::string what) { return Value(Undefined{std::move(what)}); }
  // Throw (through ctx) if nested deeper than 100, or if an element is a namespace.
  static Value list(Context& ctx, Items items, bool tuple = false);
  static Value dict(Context& ctx, Entries entries, DictKind kind = DictKind::kPlain);

  template <class T>
  const T* get() const {
    return std::get_if<T>(&v_);
  }
  bool is_undefined() const { return get<Undefined>() != nullptr; }
  bool is_none() const { return get<None>() != nullptr; }
  bool is_integer() const { return get<int64_t>() != nullptr; }
  bool is_number() const { return is_integer() || get<bool>() || get<double>(); }
  const std::string* string() const { return get<std::string>(); }
  const ListBox* as_list() const;
  const DictBox* as_dict() const;
  DictBox* as_namespace() const;  // null unless it is one
  double number() const;          // of a number; bool counts as 0 and 1
  const char* type_name() const;  // as Python calls it

 private:
  explicit Value(Undefined u) : v_(std::move(u)) {}
  std::variant<Undefined, None, bool, int64_t, double, std::string, std::shared_ptr<ListBox>, std::shared_ptr<DictBox>,
               const Macro*, Builtin>
      v_;
};

struct ListBox {
  Items items;
  bool tuple;
  int depth;
};
struct DictBox {
  Entries entries;  // in order of insertion
  DictKind kind;
  int depth;
  const Value* find(std::string_view key) const;
  void set(Context& ctx, const std::string& key, Value v);
};

bool truth(const Value&);
std::string to_text(Context&, const Value&);                             // Python's str(); undefined: ""
std::string repr(Context&, const Value&);                                // Python's repr()
std::string to_json(Context&, const Value&, int indent, int level = 0);  // json.dumps; indent < 0: one line
bool equal(Context&, const Value&, const Value&);
bool less(Context&, const Value&, const Value&);  // fails if the types have no order
bool contains(Context&, const Value& container, const Value& item);
Items iterate(Context&, const Value&);  // elements, keys, or characters
Items characters(Context&, std::string_view);

}  // namespace krait::text::jinja
