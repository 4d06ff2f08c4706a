// linear n_m[2:4]/float bfloat16
// template: strips; schedule: block_rows=128 block_strips=32 columns_of_word=1 decode_pairs=0 decode_streams=2 lists=0 masked=0 paired=1 panel_bytes=1048576 region_work=65536 repeats_rows=0 skips=0 step_tiles=2 strip_rows=8 tile_columns=32 uses_amx=0 x_vectors=8; target: cpu x86_64 avx2
... 15 lines as in strips_linear_n_m_2_4_float_bfloat16_629599.cpp ...
constexpr int64_t block_rows = 128;
constexpr int64_t block_strips = 32;
constexpr int64_t columns_of_word = 1;
constexpr int64_t decode_pairs = 0;
constexpr int64_t decode_streams = 2;
constexpr int64_t lists = 0;
constexpr int64_t masked = 0;
constexpr int64_t paired = 1;
... 4 lines as in strips_linear_n_m_2_4_float_bfloat16_629599.cpp ...
constexpr int64_t step_tiles = 2;
constexpr int64_t strip_rows = 8;
constexpr int64_t tile_columns = 32;
constexpr int64_t uses_amx = 0;
constexpr int64_t x_vectors = 8;
... 54 lines as in strips_linear_n_m_2_4_float_bfloat16_629599.cpp ...
// ... strips/layout/avx2.h ...
... 17 lines as in strips_linear_n_m_2_4_float_bfloat16_629599.cpp ...
// ... turn.h ...

// ... transpose.h ...

// ... strips/x/tiles.h ...

// What is kept of W finds every column of x as it is.

namespace {

constexpr int64_t tile_choices_bytes = 0;
template <int vectors_of_x>
SC_INLINE const char* lay_out_choices(const Word* x, int64_t, char*) {
  return reinterpret_cast<const char*>(x);
}

}  // namespace

// ... strips/x/floats.h ...

// ... strips/batch/pairs_floats.h ...

// ... strips/batch/kept.h ...
