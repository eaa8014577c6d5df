// Settings: a TOML text as a tree in which every value knows where it stands, and a reader that collects all mistakes.
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "krait/io/json.h"

namespace krait::train {

struct Setting {
  std::string place;  // "books.toml:12"
  io::Json value;     // null for a table
  bool is_table = false;
  std::map<std::string, Setting> table;

  io::Json as_json() const;  // tables as objects, keys by name
};

// The TOML text `name`. Each of `changes` is KEY=VALUE with a dotted key ("train.steps=100"); a value that is no TOML
// is a string. Throws kBadData on a text that is no TOML, kUsage on a change that is none.
Setting parse_settings(std::string_view text, const std::string& name, const std::vector<std::string>& changes);

// Reads tables key by key. What is wrong is noted, and all of it thrown by finish().
class SettingReader {
 public:
  explicit SettingReader(const Setting& root) : root_(&root) {}

  // The keys read from here on are those of this table of the root, which may be absent.
  void enter(const std::string& table);
  // Those that were not read are noted as unknown.
  void leave();

  bool has(const std::string& key) const { return find(key) != nullptr; }
  // The value replaces `target` if it is there.
  void read(const std::string& key, int64_t& target, int64_t least);
  void read(const std::string& key, uint64_t& target);
  void read(const std::string& key, double& target, double least, double most);
  void read(const std::string& key, bool& target);
  void read(const std::string& key, std::string& target);
  void read(const std::string& key, std::string& target, const std::vector<std::string>& of);
  void read(const std::string& key, std::vector<std::string>& target);                         // also one string
  void read(const std::string& key, std::map<std::string, std::string, std::less<>>& target);  // a table of scalars
  void read(const std::string& key, io::Json& target);                                         // as it is

  void problem(const std::string& key, const std::string& what);  // at the key's place, or the table's
  // Throws kBadData with every problem. Tables of the root that were never entered are among them.
  void finish();

 private:
  const Setting* find(const std::string& key) const;
  const io::Json* scalar(const std::string& key);
  void wrong(const std::string& key, const std::string& wanted);

  const Setting* root_;
  const Setting* table_ = nullptr;  // null: absent
  std::string name_;
  std::vector<std::string> entered_, known_, problems_;
};

}  // namespace krait::train
