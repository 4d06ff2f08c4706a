// The loops over many rows of x with Intel's tile registers (AMX), where the kernel grants them.
#include <sys/syscall.h>
#include <unistd.h>

namespace {

// Linux gives a process the tile registers when it asks; threads inherit them.
inline bool amx_allowed() {
  constexpr int request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool allowed = syscall(SYS_arch_prctl, request, tile_data) == 0;
  return allowed;
}

constexpr int64_t x_row_bytes = pack_columns * sizeof(Activation);

// Shapes of the tile registers while an object lives: 0..3 sums, 4 and 5 x, 6 and 7 W.
struct TileRegisters {
  struct alignas(64) Shapes {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  };
  const bool used = amx_allowed();

  TileRegisters() {
    if (!used) return;
    Shapes shapes;
    for (int i = 0; i < 8; ++i) {
      shapes.rows[i] = i < 6 ? 16 : x_row_bytes / 4;
      shapes.row_bytes[i] = i == 4 || i == 5 ? x_row_bytes : 64;
    }
    // GCC 12 does not know that the instruction reads all of it.
    asm volatile("" ::"r"(&shapes) : "memory");
    _tile_loadconfig(&shapes);
  }
  ~TileRegisters() {
    if (used) _tile_release();
  }
};

// A macro, since the intrinsics write their arguments into the instruction's name.
#define SC_MULTIPLY_TILES(sums, x, w)                          \
  do {                                                         \
    if constexpr (multiplies_integers) _tile_dpbsud(sums, x, w); \
    if constexpr (multiplies_pairs) _tile_dpbf16ps(sums, x, w);  \
  } while (false)

// Registers are named by constants, hence the spelled-out pairs: sums[i][s] is register 2 i + s.
template <int strips, int x_tiles>
SC_INLINE void multiply_tile_block(const Chunk& chunk, int first, const Activation* x,
                                   int64_t x_stride, Sum* sums, Expander& expander) {
  constexpr int64_t next = sums_tile, below = group_strips * sums_tile;
  sums += first * next;
  if (chunk.begins) {
    _tile_zero(0);
    if constexpr (strips > 1) _tile_zero(1);
    if constexpr (x_tiles > 1) _tile_zero(2);
    if constexpr (x_tiles > 1 && strips > 1) _tile_zero(3);
  } else {
    _tile_loadd(0, sums, 64);
    if constexpr (strips > 1) _tile_loadd(1, sums + next, 64);
    if constexpr (x_tiles > 1) _tile_loadd(2, sums + below, 64);
    if constexpr (x_tiles > 1 && strips > 1) _tile_loadd(3, sums + below + next, 64);
  }
  for (int64_t t = 0; t < chunk.count; ++t) {
    const Activation* at = x + chunk.place(t) * x_tile;
    _tile_loadd(4, at, x_row_bytes);
    _tile_loadd(6, chunk.packs[first] + t * w_tile, 64);
    SC_MULTIPLY_TILES(0, 4, 6);
    if constexpr (strips > 1) {
      _tile_loadd(7, chunk.packs[first + 1] + t * w_tile, 64);
      SC_MULTIPLY_TILES(1, 4, 7);
    }
    if constexpr (x_tiles > 1) {
      _tile_loadd(5, at + x_stride, x_row_bytes);
      SC_MULTIPLY_TILES(2, 5, 6);
      if constexpr (strips > 1) SC_MULTIPLY_TILES(3, 5, 7);
    }
    expander.step();
  }
  _tile_stored(0, sums, 64);
  if constexpr (strips > 1) _tile_stored(1, sums + next, 64);
  if constexpr (x_tiles > 1) _tile_stored(2, sums + below, 64);
  if constexpr (x_tiles > 1 && strips > 1) _tile_stored(3, sums + below + next, 64);
}

// Tiles i and, where `x_tiles` is two, i + 1 of x times all strips of the chunk.
template <int x_tiles>
SC_INLINE void multiply_tiles(const Chunk& chunk, const Activation* x, int64_t x_stride, Sum* sums,
                              Expander& expander) {
  int first = 0;
  for (; first + 2 <= chunk.strips; first += 2)
    multiply_tile_block<2, x_tiles>(chunk, first, x, x_stride, sums, expander);
  if (first < chunk.strips)
    multiply_tile_block<1, x_tiles>(chunk, first, x, x_stride, sums, expander);
}

inline void multiply_chunk(const Chunk& chunk, const Activation* x, int64_t x_stride,
                           int64_t x_tiles, Sum* sums, Expander& expander) {
  if (!amx_allowed()) {
    multiply_chunk_by_vectors(chunk, x, x_stride, x_tiles, sums);
    return;
  }
  expander.spread(ceil_div(x_tiles, 2) * ceil_div(chunk.strips, 2) * chunk.count);
  int64_t i = 0;
  for (; i + 2 <= x_tiles; i += 2, x += 2 * x_stride, sums += 2 * group_strips * sums_tile)
    multiply_tiles<2>(chunk, x, x_stride, sums, expander);
  if (i < x_tiles) multiply_tiles<1>(chunk, x, x_stride, sums, expander);
}

}  // namespace
