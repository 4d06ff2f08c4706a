// linear n_m[2:4]/float bfloat16
// template: strips; schedule: block_rows=128 block_strips=32 columns_of_word=1 decode_pairs=0 decode_streams=2 lists=0 masked=0 paired=1 panel_bytes=1048576 region_work=65536 repeats_rows=0 skips=0 step_tiles=2 strip_rows=8 tile_columns=32 uses_amx=0 x_vectors=8; target: cpu x86_64 avx2
// y[m, n] = epilogue(x[m, k] @ W[n, k].T + bias[n]); m, n and k are run-time values.

// ... arguments.h ...

// ... prelude.h ...

// ... numbers.h ...

namespace {

using Element = bfloat16;  // of x, bias, operands and y
using Scale = bfloat16;  // of values of W, where these have scales
constexpr int operand_count = 0;

// Schedule.
constexpr int64_t block_rows = 128;
constexpr int64_t block_strips = 32;
constexpr int64_t columns_of_word = 1;
constexpr int64_t decode_pairs = 0;
constexpr int64_t decode_streams = 2;
constexpr int64_t lists = 0;
constexpr int64_t masked = 0;
constexpr int64_t paired = 1;
constexpr int64_t panel_bytes = 1048576;
constexpr int64_t region_work = 65536;
constexpr int64_t repeats_rows = 0;
constexpr int64_t skips = 0;
constexpr int64_t step_tiles = 2;
constexpr int64_t strip_rows = 8;
constexpr int64_t tile_columns = 32;
constexpr int64_t uses_amx = 0;
constexpr int64_t x_vectors = 8;
constexpr int64_t value_bits = 16;
constexpr int64_t cut = 0;
constexpr int64_t has_scales = 0;
constexpr int64_t group_columns = 0;
constexpr int64_t depth = 2;
constexpr int64_t decode_rows = 8;
constexpr int64_t integer_rows = 0;

// The weight, as the pointers in its layout.
struct Weight {
  int64_t n, k, slots;
  const uint8_t* codes;
  const bfloat16* values;

  explicit Weight(const void* layout) {
    const char* bytes = static_cast<const char*>(layout);
    const SCLayoutHeader& header = *static_cast<const SCLayoutHeader*>(layout);
    n = header.n;
    k = header.k;
    slots = header.slots;
    codes = reinterpret_cast<const uint8_t*>(bytes + header.offsets[0]);
    values = reinterpret_cast<const bfloat16*>(bytes + header.offsets[1]);
  }
};

}  // namespace

// ... n_m[2:4] ...

// ... float ...

// ... activations.h ...

namespace {

constexpr bool rounds_activations = false;

}  // namespace

// ... round.h ...

namespace {

// For a float or a vector of them.
template <class Values>
SC_INLINE Values epilogue(Values value, [[maybe_unused]] Values operand0,
                          [[maybe_unused]] Values operand1) {
  return value;
}

}  // namespace

// ... strips/layout/strips.h ...

// ... strips/layout/avx2.h ...

// ... strips/layout/values.h ...

// ... strips/layout/ahead.h ...

// ... strips/layout/float.h ...

// ... strips/layout/prepack.h ...

// ... finish.h ...

// ... strips/decode/float.h ...

// ... strips/decode/few.h ...

// ... strips/batch/share.h ...

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
