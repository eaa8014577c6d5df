// libcairo, loaded when a plot is drawn: linked in, it and what it needs would triple the time in which krait starts.
#pragma once
#include <cairo/cairo-svg.h>
#include <cairo/cairo.h>

namespace krait::cli {

// What is used of it, by name.
#define KRAIT_CAIRO_FUNCTIONS(X)   \
  X(svg_surface_create_for_stream) \
  X(image_surface_create)          \
  X(surface_write_to_png_stream)   \
  X(surface_finish)                \
  X(surface_destroy)               \
  X(surface_status)                \
  X(status_to_string)              \
  X(create)                        \
  X(destroy)                       \
  X(set_source_rgb)                \
  X(set_line_width)                \
  X(set_line_join)                 \
  X(move_to)                       \
  X(line_to)                       \
  X(stroke)                        \
  X(rectangle)                     \
  X(clip)                          \
  X(reset_clip)                    \
  X(fill)                          \
  X(select_font_face)              \
  X(set_font_size)                 \
  X(text_extents)                  \
  X(show_text)                     \
  X(scale)                         \
  X(save)                          \
  X(restore)

struct Cairo {
// NOLINTNEXTLINE(bugprone-macro-parentheses): a declaration
#define KRAIT_CAIRO_POINTER(name) decltype(&cairo_##name) name = nullptr;
  KRAIT_CAIRO_FUNCTIONS(KRAIT_CAIRO_POINTER)
#undef KRAIT_CAIRO_POINTER
};

// Throws kFailed, naming the Debian package, if the library is not there.
const Cairo& cairo();

}  // namespace krait::cli
