// Charts: panels of curves over a common x axis, as SVG or PNG.
#pragma once
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace krait::cli {

struct Curve {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x ascending; not finite y: a gap
};

struct Panel {
  std::string title;
  bool log_y = false;
  std::vector<Curve> curves;
};

// Round numbers that divide [low, high] into at most `most` steps.
std::vector<double> ticks(double low, double high, int most);

// Writes OUT.svg or OUT.png; throws kUsage on another ending, kFailed if it cannot be written.
void draw(const std::vector<Panel>&, const std::string& x_title, const std::filesystem::path& out);

}  // namespace krait::cli
