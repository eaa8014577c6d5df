// MixerConfig: the numbers that describe one mixer, by name ("d_state", "is_mimo"). Plain data: it can be printed,
// compared and hashed, and a new mixer needs no change here.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace krait {

class MixerConfig {
 public:
  MixerConfig& set(const std::string& name, double value) {
    values_[name] = value;
    return *this;
  }
  // Each throws kBadData if the name is missing; integer() also if the value is not one.
  double number(std::string_view name) const;
  int64_t integer(std::string_view name) const;
  bool flag(std::string_view name) const { return number(name) != 0; }

  const std::map<std::string, double, std::less<>>& values() const { return values_; }
  bool operator==(const MixerConfig&) const = default;

 private:
  std::map<std::string, double, std::less<>> values_;
};

}  // namespace krait
