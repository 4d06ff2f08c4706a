// linear n_m[2:4]/float bfloat16
// template: strips; schedule: batch_columns=512 decode_pairs=0 decode_streams=4 group_strips=4 lists=0 masked=1 paired=0 panel_bytes=1048576 region_work=65536 repeats_rows=0 skips=0 strip_rows=16 tile_columns=32 uses_amx=1; target: cpu x86_64 amx
// y[m, n] = epilogue(x[m, k] @ W[n, k].T + bias[n]); m, n and k are run-time values.

// ... arguments.h ...

// ... prelude.h ...

// ... numbers.h ...

namespace {

using Element = bfloat16;  // of x, bias, operands and y
using Scale = bfloat16;  // of values of W, where these have scales
constexpr int operand_count = 0;

// Schedule.
constexpr int64_t batch_columns = 512;
constexpr int64_t decode_pairs = 0;
constexpr int64_t decode_streams = 4;
constexpr int64_t group_strips = 4;
constexpr int64_t lists = 0;
constexpr int64_t masked = 1;
constexpr int64_t paired = 0;
constexpr int64_t panel_bytes = 1048576;
constexpr int64_t region_work = 65536;
constexpr int64_t repeats_rows = 0;
constexpr int64_t skips = 0;
constexpr int64_t strip_rows = 16;
constexpr int64_t tile_columns = 32;
constexpr int64_t uses_amx = 1;
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

// ... strips/layout/avx512.h ...

// ... strips/layout/values.h ...

// ... strips/layout/ahead.h ...

// ... strips/layout/float.h ...

// ... strips/layout/prepack.h ...

// ... finish.h ...

// ... strips/decode/float.h ...

// ... strips/decode/few.h ...

// ... strips/batch/share.h ...

// ... strips/batch/chunk.h ...

// ... strips/batch/vectors.h ...

// ... strips/batch/amx.h ...

// ... strips/batch/expanded.h ...
