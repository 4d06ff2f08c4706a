// linear n_m[2:4]/float bfloat16
// template: strips; schedule: block_rows=256 block_strips=32 columns_of_word=2 decode_pairs=1 decode_streams=4 lists=0 masked=0 paired=1 panel_bytes=1048576 region_work=65536 repeats_rows=0 skips=0 step_tiles=3 strip_rows=16 tile_columns=32 uses_amx=0 x_vectors=2; target: cpu x86_64 avx512_bf16
... 15 lines as in strips_linear_n_m_2_4_float_bfloat16_629599.cpp ...
constexpr int64_t block_rows = 256;
constexpr int64_t block_strips = 32;
constexpr int64_t columns_of_word = 2;
constexpr int64_t decode_pairs = 1;
constexpr int64_t decode_streams = 4;
constexpr int64_t lists = 0;
constexpr int64_t masked = 0;
constexpr int64_t paired = 1;
... 4 lines as in strips_linear_n_m_2_4_float_bfloat16_629599.cpp ...
constexpr int64_t step_tiles = 3;
constexpr int64_t strip_rows = 16;
constexpr int64_t tile_columns = 32;
constexpr int64_t uses_amx = 0;
constexpr int64_t x_vectors = 2;
... 72 lines as in strips_linear_n_m_2_4_float_bfloat16_629599.cpp ...
// ... turn.h ...

// ... transpose.h ...

// ... strips/x/tiles.h ...

// Of four activations six pairs can be made. For some columns all of them are laid side by side once; a
// row of W takes one product for every four columns, with those that the kind of its kept pair names.
//   x        [tile of rows][columns / 2][rows of the tile] pairs, of 16 bits each
//   choices  [group of four columns][6][rows of a tile]: the pairs that can be made of x

namespace {

constexpr int64_t kind_bytes = widest * lanes * sizeof(Word);
constexpr int64_t group_bytes = pair_kinds * kind_bytes;
constexpr int64_t tile_choices_bytes = tile_groups * group_bytes;

// The pairs that can be made of four activations: x [groups][2][width] -> [groups][6], in `memory`.
template <int vectors_of_x>
SC_SHARED const char* lay_out_choices(const Word* x, int64_t groups, char* memory) {
  constexpr int64_t width = vectors_of_x * lanes;
  char* choices = memory;
  for (int64_t g = 0; g < groups; ++g, x += 2 * width, choices += group_bytes) {
#pragma GCC unroll 8
    for (int v = 0; v < vectors_of_x; ++v) {
      const Words ab = load<Words>(x + v * lanes), cd = load<Words>(x + width + v * lanes);
      const Words b = ab >> 16, c = cd << 16;
      char* out = choices + v * sizeof(Words);
      store(out, ab);
      store(out + kind_bytes, with_upper_words((Register)ab, (Register)c));
      store(out + 2 * kind_bytes, with_upper_words((Register)ab, (Register)cd));
      store(out + 3 * kind_bytes, b | c);
      store(out + 4 * kind_bytes, with_upper_words((Register)b, (Register)cd));
      store(out + 5 * kind_bytes, cd);
    }
  }
  return memory;
}

}  // namespace

// ... strips/x/pairs.h ...

// ... strips/batch/pairs_bfloat16.h ...

// ... strips/batch/kept.h ...
