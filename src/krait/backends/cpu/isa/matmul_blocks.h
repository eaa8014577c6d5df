// Walks a block of a matmul's sum in register tiles: pieces of rows times panels of columns.
#pragma once
#include <string.h>

#include "krait/backends/cpu/isa/integers.h"
#include "krait/backends/cpu/isa/matmul_tile.h"

namespace krait::KRAIT_ISA {

// One packed panel of rows.
struct Piece {
  int32_t cls, rows;  // class of tile, rows that exist
  int64_t m0;         // first row
  int64_t at;         // first element, in packed rows
};

constexpr int64_t most_pieces(int64_t rows) { return rows / kMaxRows + 4; }

struct Pieces {
  int64_t n, rows_packed;
};

// Cuts `rows` rows into pieces of the biggest classes; what is left over is rounded up to a class.
inline Pieces cut_rows(int64_t rows, Piece* pieces) {
  Pieces cut{0, 0};
  for (int64_t m = 0; m < rows;) {
    const int64_t left = rows - m;
    int cls = kClasses - 1;
    if (left < kMaxRows) {  // the smallest class that holds them all, or else the biggest that they fill
      cls = 0;
      while (cls + 1 < kClasses && kClassRows[cls] < left) ++cls;
      if (kClassRows[cls] == kMaxRows && left <= 3 * kMaxRows / 4) --cls;
    }
    const auto n = static_cast<int32_t>(min(left, kClassRows[cls]));
    pieces[cut.n++] = {cls, n, m, cut.rows_packed};
    m += n;
    cut.rows_packed += kClassRows[cls];
  }
  return cut;
}

// Products of one block of the sum's dimension k.
struct Block {
  const TileKernels* tiles;
  const float* x;             // packed rows
  int64_t x_per_row, x_skip;  // elements of a packed row, and of it before the block
  const char* w;              // packed columns, at the block
  int64_t w_stride;           // bytes of a panel
  int64_t w_short;            // bytes of a panel up to which all panels of a tile are first read through
  int64_t k;                  // products of one output
  bool carry;                 // y holds the sum over earlier blocks, else it starts from 0
  const float* bias;          // [N] or null
  float* y;                   // [rows, N]
  int64_t ldy, N;
};

// A tile that sticks out of y, through a buffer.
inline void run_edge(TileKernel kernel, Tile tile, int rows, int64_t cols, int64_t width) {
  alignas(64) float buffer[kMaxTile];
  alignas(64) float bias[kPanel * 8];
  float* y = tile.y;
  const int64_t ldy = tile.ldy;
  const auto bytes = static_cast<size_t>(cols) * 4;
  if (tile.carry) {
    memset(buffer, 0, sizeof(buffer));
    for (int m = 0; m < rows; ++m) memcpy(buffer + m * width, y + m * ldy, bytes);
  }
  if (tile.bias != nullptr) {
    memset(bias, 0, sizeof(bias));
    memcpy(bias, tile.bias, bytes);
    tile.bias = bias;
  }
  tile.y = buffer;
  tile.ldy = width;
  kernel(tile);
  for (int m = 0; m < rows; ++m) memcpy(y + m * ldy, buffer + m * width, bytes);
}

inline void read_through(const char* p, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) static_cast<void>(*static_cast<const volatile char*>(p + at));
}

// Pieces [first, end) of one class times panels [n0, n1).
inline void run_class(const Block& b, const Piece* first, const Piece* end, int64_t n0, int64_t n1) {
  const int cls = first->cls;
  Tile t;
  t.k = b.k;
  t.w_stride = b.w_stride;
  t.carry = b.carry;
  for (int64_t n = n0; n < n1;) {
    int log = kClassLogPanels[cls];
    while ((int64_t{1} << log) > n1 - n) --log;
    const int64_t width = int64_t{kPanel} << log;
    const int64_t cols = min(width, b.N - n * kPanel);
    const TileKernel kernel = b.tiles->at[cls][log];
    t.w = b.w + n * b.w_stride;
    t.bias = b.bias != nullptr ? b.bias + n * kPanel : nullptr;
    if (b.w_stride <= b.w_short) read_through(t.w, min(width / kPanel, n1 - n) * b.w_stride);
    for (const Piece* piece = first; piece < end; ++piece) {
      t.x = b.x + piece->at * b.x_per_row + b.x_skip * kClassRows[cls];
      t.y = b.y + piece->m0 * b.ldy + n * kPanel;
      t.ldy = b.ldy;
      if (cols == width && piece->rows == kClassRows[cls]) {
        kernel(t);
      } else {
        run_edge(kernel, t, piece->rows, cols, width);
      }
    }
    n += int64_t{1} << log;
  }
}

// Pieces [first, end) times panels [n0, n1).
inline void run_block(const Block& b, const Piece* first, const Piece* end, int64_t n0, int64_t n1) {
  while (first < end) {
    const Piece* last = first + 1;
    while (last < end && last->cls == first->cls) ++last;
    run_class(b, first, last, n0, n1);
    first = last;
  }
}

}  // namespace krait::KRAIT_ISA
