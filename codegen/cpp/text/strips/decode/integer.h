// Few rows of x and integer values, multiplied as integers.
//
// x becomes integers of one plane or two, scaled row by row. What they and the codes of W are above the
// numbers that they stand for is taken off at the end of each group of columns (`Excess`).

#include <numeric>

namespace {

// Columns after which sums are scaled, so that a group is summed alone and 32 bits do not overflow.
constexpr int64_t flush_columns = group_columns == 0 ? columns_in_sum
                                  : group_columns <= columns_in_sum
                                      ? group_columns
                                      : std::gcd(group_columns, columns_in_sum);
constexpr int64_t flush_tiles = flush_columns / tile_columns;

template <int rows, int strips>
struct IntegerSums {
  Floats<strip_rows> total[strips][rows];
  Register partial[strips][rows][planes];
  // Strips that have the same tiles have the sums of x in common.
  static constexpr bool shares_excess = !skips && !paired;
  Excess<rows> excess[shares_excess ? 1 : strips];

  SC_INLINE IntegerSums() {
#pragma GCC unroll 8
    for (int s = 0; s < strips; ++s) {
#pragma GCC unroll 8
      for (int i = 0; i < rows; ++i) total[s][i] = Floats<strip_rows>{};
      clear(s);
    }
  }
  SC_INLINE Excess<rows>& excess_of(int s) { return excess[shares_excess ? 0 : s]; }
  // Before a tile's vectors, strip by strip.
  SC_INLINE void open_tile(int s, const IntegerRows& x, int64_t tile) {
    if (!shares_excess || s == 0) excess_of(s).add_tile(x, tile);
  }
  SC_INLINE void clear(int s) {
    if (!shares_excess || s == strips - 1) excess_of(s) = {};
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
      for (int p = 0; p < planes; ++p) partial[s][i][p] = Register{};
  }
  // Scale what was summed since the last time.
  SC_INLINE void flush(int s, const OfGroup::Place& group) {
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      Singles sum{};
#pragma GCC unroll 2
      for (int p = planes - 1; p >= 0; --p) {
        const auto sums = (Ints<strip_rows>)partial[s][i][p] - (Ints<strip_rows>)excess_of(s).of(i, p);
        const auto part = __builtin_convertvector(sums, Floats<strip_rows>);
        sum = fused_multiply_add((Singles)part, broadcast(plane_units[p]), sum);
      }
      sum = fused_multiply_add(sum, (Singles)load_scales(group), (Singles)total[s][i]);
      total[s][i] = (Floats<strip_rows>)add_rest(sum, excess_of(s).of_row(i), group);
    }
    clear(s);
  }
};

template <int rows, int strips>
SC_INLINE void decode_group(const Strips& w, int64_t strip, int64_t last, const IntegerRows& x,
                            float* out) {
  IntegerSums<rows, strips> sums;
  Reader readers[strips];
  int64_t common = w.tiles;
#pragma GCC unroll 8
  for (int s = 0; s < strips; ++s) {
    readers[s].open_strip(w, strip + s, strip + s + strips, last);
    const int64_t present = w.present_tiles(strip + s);
    common = present < common ? present : common;
  }
  const auto open_tile = [&](int s, int64_t place) SC_INLINED {
    readers[s].open_tile(w, strip + s, place);
    sums.open_tile(s, x, place);
  };
  const auto add_vector = [&](int s, int v, int64_t place) SC_INLINED {
    const Operands w = operand_of(readers[s], readers[s].next(v));
    sums.excess_of(s).add_vector(w);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
      for (int p = 0; p < planes; ++p) {
        Register& sum = sums.partial[s][i][p];
        sum = x.template add_products<rows>(sum, w, p, i, place, v);
      }
  };
  const auto close_tile = [&](int s, int64_t t, int64_t place) SC_INLINED {
    // The last tile of a group of columns, or of those that are there.
    const int64_t present = w.present_tiles(strip + s);
    if (t + 1 == present || w.place(strip + s, t + 1) / flush_tiles != place / flush_tiles)
      sums.flush(s, readers[s].group.place);
  };
  for (int64_t t = 0; t < common; ++t) {
    int64_t places[strips];
#pragma GCC unroll 8
    for (int s = 0; s < strips; ++s) {
      places[s] = w.place(strip + s, t);
      open_tile(s, places[s]);
    }
    // Strip by strip: a product would wait for the one before.
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v)
#pragma GCC unroll 8
      for (int s = 0; s < strips; ++s) add_vector(s, v, places[s]);
#pragma GCC unroll 8
    for (int s = 0; s < strips; ++s) close_tile(s, t, places[s]);
  }
#pragma GCC unroll 8
  for (int s = 0; s < strips; ++s) {
    for (int64_t t = common; skips && t < w.present_tiles(strip + s); ++t) {
      const int64_t place = w.place(strip + s, t);
      open_tile(s, place);
#pragma GCC unroll 8
      for (int v = 0; v < vectors; ++v) add_vector(s, v, place);
      close_tile(s, t, place);
    }
    for (int i = 0; i < rows; ++i)
      store(out + (s * rows + i) * strip_rows, sums.total[s][i] * x.scales[i]);
  }
}

}  // namespace
