#include "chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>

#include "cairo_library.h"
#include "krait/core/error.h"
#include "krait/io/atomic_file.h"

namespace krait::cli {
namespace {

constexpr double kWidth = 900, kPanelHeight = 300, kLeft = 80, kRight = 20, kTop = 36, kBottom = 44, kPngScale = 2;
struct Colour {
  double r, g, b;
};
// Okabe and Ito's, told apart by colour-blind readers.
constexpr std::array<Colour, 7> kColours{{{0.00, 0.45, 0.70},
                                          {0.84, 0.37, 0.00},
                                          {0.00, 0.62, 0.45},
                                          {0.80, 0.47, 0.65},
                                          {0.34, 0.71, 0.91},
                                          {0.90, 0.62, 0.00},
                                          {0.20, 0.20, 0.20}}};

struct Range {
  double low = INFINITY, high = -INFINITY;
  void add(double v) {
    if (!std::isfinite(v)) return;
    low = std::min(low, v);
    high = std::max(high, v);
  }
  void widen() {
    if (!(low <= high)) low = 0, high = 1;
    if (low == high) low -= 0.5, high += 0.5;
  }
};

class Drawing {
 public:
  Drawing(const std::filesystem::path& out, double height) : out_(out), png_(out.extension() == ".png") {
    surface_ = png_ ? c_.image_surface_create(CAIRO_FORMAT_RGB24, static_cast<int>(kWidth * kPngScale),
                                              static_cast<int>(height * kPngScale))
                    : c_.svg_surface_create_for_stream(append, &picture_, kWidth, height);
    check();
    cr_ = c_.create(surface_);
    if (png_) c_.scale(cr_, kPngScale, kPngScale);
    colour({1, 1, 1});
    c_.rectangle(cr_, 0, 0, kWidth, height);
    c_.fill(cr_);
    c_.select_font_face(cr_, "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
    c_.set_line_join(cr_, CAIRO_LINE_JOIN_ROUND);
  }
  Drawing(const Drawing&) = delete;
  Drawing& operator=(const Drawing&) = delete;
  ~Drawing() {
    if (cr_ != nullptr) c_.destroy(cr_);
    if (surface_ != nullptr) c_.surface_destroy(surface_);
  }

  void finish() {
    if (png_) {
      const cairo_status_t status = c_.surface_write_to_png_stream(surface_, append, &picture_);
      if (status != CAIRO_STATUS_SUCCESS) failed(status);
    }
    c_.surface_finish(surface_);
    check();
    io::write_file(out_, picture_);
  }

  void colour(Colour k) { c_.set_source_rgb(cr_, k.r, k.g, k.b); }
  void line(double x0, double y0, double x1, double y1, double width) {
    c_.set_line_width(cr_, width);
    c_.move_to(cr_, x0, y0);
    c_.line_to(cr_, x1, y1);
    c_.stroke(cr_);
  }
  // align: 0 begins at x, 0.5 is centred, 1 ends at x. Returns the width.
  double text(double x, double y, double size, const std::string& s, double align = 0) {
    cairo_text_extents_t e;
    c_.set_font_size(cr_, size);
    c_.text_extents(cr_, s.c_str(), &e);
    c_.move_to(cr_, x - align * e.x_advance, y);
    c_.show_text(cr_, s.c_str());
    return e.x_advance;
  }
  // f(to): to(x, y) continues the curve; a y that is not finite breaks it.
  template <class F>
  void curve(double x, double y, double width, double height, F f) {
    c_.save(cr_);
    c_.rectangle(cr_, x, y, width, height);
    c_.clip(cr_);
    c_.set_line_width(cr_, 1.6);
    bool down = false;
    f([&](double px, double py) {
      if (std::isfinite(py)) down ? c_.line_to(cr_, px, py) : c_.move_to(cr_, px, py);
      down = std::isfinite(py);
    });
    c_.stroke(cr_);
    c_.restore(cr_);
  }

 private:
  static cairo_status_t append(void* to, const unsigned char* data, unsigned int n) {
    static_cast<std::string*>(to)->append(reinterpret_cast<const char*>(data), n);
    return CAIRO_STATUS_SUCCESS;
  }
  void check() const {
    const cairo_status_t status = c_.surface_status(surface_);
    if (status != CAIRO_STATUS_SUCCESS) failed(status);
  }
  [[noreturn]] void failed(cairo_status_t status) const {
    throw Error(ErrorCode::kFailed, "[plot] cannot write " + out_.string() + ": " + c_.status_to_string(status));
  }

  const Cairo& c_ = cairo();
  std::filesystem::path out_;
  bool png_;
  std::string picture_;  // the file's bytes
  cairo_surface_t* surface_ = nullptr;
  cairo_t* cr_ = nullptr;
};

void draw_panel(Drawing& d, const Panel& panel, const Range& xs, double top, const std::string& x_title) {
  const auto scaled = [&](double v) { return panel.log_y ? std::log10(v) : v; };
  Range ys;
  for (const Curve& c : panel.curves)
    for (const auto& [x, y] : c.points) ys.add(scaled(y));
  ys.widen();
  const double x0 = kLeft, y0 = top + kTop, width = kWidth - kLeft - kRight, height = kPanelHeight - kTop - kBottom;
  const auto at_x = [&](double x) { return x0 + (x - xs.low) / (xs.high - xs.low) * width; };
  const auto at_y = [&](double y) { return y0 + height - (y - ys.low) / (ys.high - ys.low) * height; };
  constexpr Colour kGrid{0.88, 0.88, 0.88}, kText{0.25, 0.25, 0.25};
  for (const double v : ticks(ys.low, ys.high, 6)) {
    d.colour(kGrid);
    d.line(x0, at_y(v), x0 + width, at_y(v), 1);
    d.colour(kText);
    d.text(x0 - 8, at_y(v) + 4, 12, fmt::format("{:.4g}", panel.log_y ? std::pow(10, v) : v), 1);
  }
  for (const double v : ticks(xs.low, xs.high, 9)) {
    d.colour(kGrid);
    d.line(at_x(v), y0, at_x(v), y0 + height, 1);
    d.colour(kText);
    d.text(at_x(v), y0 + height + 18, 12, fmt::format("{:g}", v), 0.5);
  }
  d.text(x0 + width / 2, y0 + height + 36, 12, x_title, 0.5);
  double at = x0 + d.text(x0, top + 22, 14, panel.title) + 24;
  for (size_t i = 0; i < panel.curves.size(); ++i) {
    const Curve& c = panel.curves[i];
    d.colour(kColours[i % kColours.size()]);
    d.line(at, top + 17, at + 22, top + 17, 2.5);
    at += 28 + d.text(at + 28, top + 22, 12, c.name) + 18;
    d.curve(x0, y0, width, height, [&](auto to) {
      for (const auto& [x, y] : c.points) to(at_x(x), at_y(scaled(y)));
    });
  }
}

}  // namespace

std::vector<double> ticks(double low, double high, int most) {
  const double rough = (high - low) / most, magnitude = std::pow(10, std::floor(std::log10(rough)));
  double step = magnitude * 10;
  for (const double m : {1.0, 2.0, 5.0}) {
    if (m * magnitude >= rough) {
      step = m * magnitude;
      break;
    }
  }
  std::vector<double> r;
  for (double i = std::ceil(low / step); i * step <= high; ++i) r.push_back(i * step);
  return r;
}

void draw(const std::vector<Panel>& panels, const std::string& x_title, const std::filesystem::path& out) {
  if (out.extension() != ".svg" && out.extension() != ".png") {
    fail_usage("[plot] " + out.string() + " must end in .svg or .png");
  }
  Range xs;
  for (const Panel& p : panels)
    for (const Curve& c : p.curves)
      for (const auto& [x, y] : c.points) xs.add(x);
  xs.widen();
  Drawing d(out, kPanelHeight * static_cast<double>(panels.size()));
  for (size_t i = 0; i < panels.size(); ++i)
    draw_panel(d, panels[i], xs, kPanelHeight * static_cast<double>(i), x_title);
  d.finish();
}

}  // namespace krait::cli
