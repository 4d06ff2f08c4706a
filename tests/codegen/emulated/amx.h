// What the instructions of AMX compute, in tiles of which each thread has eight.
#pragma once
#include <sys/syscall.h>
#include <unistd.h>

#include "lanes.h"

namespace emulated {

// Tile registers: rows of bytes, as `Shapes` says.
struct Tile {
  alignas(64) uint8_t bytes[16][64];
};
inline thread_local Tile tiles[8];
inline thread_local uint8_t tile_rows[8];
inline thread_local uint16_t tile_row_bytes[8];

inline void configure(const void* shapes) {
  const uint8_t* from = static_cast<const uint8_t*>(shapes);
  std::memcpy(tile_row_bytes, from + 16, sizeof tile_row_bytes);
  std::memcpy(tile_rows, from + 48, sizeof tile_rows);
  std::memset(tiles, 0, sizeof tiles);
}
inline void load_tile(int tile, const void* from, int64_t stride) {
  for (int i = 0; i < tile_rows[tile]; ++i)
    std::memcpy(tiles[tile].bytes[i], static_cast<const char*>(from) + i * stride,
                tile_row_bytes[tile]);
}
inline void store_tile(int tile, void* to, int64_t stride) {
  for (int i = 0; i < tile_rows[tile]; ++i)
    std::memcpy(static_cast<char*>(to) + i * stride, tiles[tile].bytes[i], tile_row_bytes[tile]);
}
// sums [M][N] += x [M][K] times w [K][N], in whose rows elements of four bytes stand together.
template <class Sum, class Dot>
inline void multiply_tiles(int sums, int x, int w, Dot&& dot) {
  for (int i = 0; i < tile_rows[sums]; ++i)
    for (int j = 0; j < tile_row_bytes[sums] / 4; ++j) {
      Sum total;
      std::memcpy(&total, tiles[sums].bytes[i] + 4 * j, 4);
      for (int k = 0; k < tile_row_bytes[x] / 4; ++k)
        total = dot(total, tiles[x].bytes[i] + 4 * k, tiles[w].bytes[k] + 4 * j);
      std::memcpy(tiles[sums].bytes[i] + 4 * j, &total, 4);
    }
}
inline void multiply_bfloat16_tiles(int sums, int x, int w) {
  multiply_tiles<float>(sums, x, w, [](float total, const uint8_t* a, const uint8_t* b) {
    uint16_t first[2], second[2];
    std::memcpy(first, a, 4);
    std::memcpy(second, b, 4);
    for (int i = 0; i < 2; ++i) total += widen(first[i]) * widen(second[i]);
    return total;
  });
}
inline void multiply_signed_by_unsigned_tiles(int sums, int x, int w) {
  multiply_tiles<int32_t>(sums, x, w, [](int32_t total, const uint8_t* a, const uint8_t* b) {
    for (int i = 0; i < 4; ++i) total += static_cast<int8_t>(a[i]) * b[i];
    return total;
  });
}

}  // namespace emulated

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#undef _tile_dpbsud
#define _tile_loadconfig emulated::configure
#define _tile_release() ((void)0)
#define _tile_zero(tile) std::memset(emulated::tiles[tile].bytes, 0, sizeof(emulated::Tile))
#define _tile_loadd emulated::load_tile
#define _tile_stored emulated::store_tile
#define _tile_dpbf16ps emulated::multiply_bfloat16_tiles
#define _tile_dpbsud emulated::multiply_signed_by_unsigned_tiles
// The system grants the tile registers.
#define syscall(...) 0
