// Loops of the template `lists` for one row of x: a vector of kept values times the elements of x
// that their columns name.

namespace {

#if defined(__AVX512F__) && !defined(__clang__)
// table[index[i] / native_floats][index[i] % native_floats] for every i, of some of its vectors.
template <int vectors>
SC_INLINE Values look_up(const Values* table, Ints<native_floats> index) {
  if constexpr (vectors == 2) {
    return __builtin_shuffle(table[0], table[1], index);
  } else {
    const Values low = look_up<vectors / 2>(table, index);
    const Values high = look_up<vectors / 2>(table + vectors / 2, index);
    return (index & (vectors / 2 * native_floats)) != 0 ? high : low;
  }
}

// A block's columns of a row of x, all of them in registers.
struct Columns {
  static constexpr int vectors = block_columns / native_floats;
  Values table[vectors];

  SC_INLINE explicit Columns(const float* x) {
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) table[v] = load<Values>(x + v * native_floats);
  }
  // x[columns[i]] for every i of a vector.
  SC_INLINE Values at(const uint8_t* columns) const {
    const __m512i index = _mm512_cvtepu8_epi32(load<__m128i>(columns));
    return look_up<vectors>(table, (Ints<native_floats>)index);
  }
};
#else
// A block's columns of a row of x, read one by one: AVX2's own gather takes twice as long.
struct Columns {
  const float* x;

  SC_INLINE explicit Columns(const float* x) : x(x) {}
  // x[columns[i]] for every i of a vector.
  SC_INLINE Values at(const uint8_t* columns) const {
    return pick(columns, std::make_integer_sequence<int, native_floats>{});
  }
  template <int... lanes>
  SC_INLINE Values pick(const uint8_t* columns, std::integer_sequence<int, lanes...>) const {
    return Values{x[load<uint32_t>(columns + lanes / 4 * 4) >> lanes % 4 * 8 & 0xff]...};
  }
};
#endif

// All blocks of some rows times a row of x, as `totals` [block_rows].
inline void dot_blocks(const Lists& w, int64_t row_block, const float* x, float* totals) {
  constexpr int width = native_floats;
  alignas(64) float sums[block_rows * width] = {};
  for (int64_t b = 0; b < w.column_blocks; ++b) {
    const Columns part(x + b * w.block_width);
    w.block(row_block, b).visit([&](int64_t row, const uint8_t* columns, const char* values,
                                    int64_t count) SC_INLINED {
      const auto value_at = [&](int64_t i) SC_INLINED {
        return load_floats<width>(reinterpret_cast<const Element*>(values + i * sizeof(Element)));
      };
      Values total = load<Values>(sums + row * width);
      const int64_t whole = count / width * width;
      for (int64_t i = 0; i < whole; i += width) {
        prefetch(values + i * sizeof(Element));
        total += value_at(i) * part.at(columns + i);
      }
      // Behind the list stands the next one: bytes that may be read, but whose products do not count.
      const Ints<width> rest = Ints<width>{} + static_cast<int32_t>(count - whole);
      const Values products = value_at(whole) * part.at(columns + whole);
      total += iota<int32_t, width>() < rest ? products : Values{};
      store(sums + row * width, total);
    });
  }
  for (int64_t i = 0; i < block_rows; ++i)
    totals[i] = sum<width>(load<Values>(sums + i * width));
}

}  // namespace

SC_EXPORT void sc_linear_decode(const SCLinearArguments* arguments) {
  const SCLinearArguments& a = *arguments;
  if (a.m > 1) return sc_linear_batch(arguments);
  const Lists w(a.weight);
  float* x = static_cast<float*>(a.workspace);
  const float no_scales[1] = {};
  transpose<1>(a, w.k, 0, 1, {0, padded_columns(w.k)}, no_scales, x);
  parallel_stage(a, header_of(a.weight).slots, [&](int64_t thread, int64_t of) {
    const Range part = share(w.row_blocks, thread, of);
    for (int64_t b = part.begin; b < part.end; ++b) {
      alignas(64) float totals[block_rows];
      dot_blocks(w, b, x, totals);
      const int64_t first = b * block_rows, last = first + block_rows;
      finish_sums(a, w.n, {first, last < w.n ? last : w.n}, 0, 1,
                  [&](int64_t, int64_t i) SC_INLINED { return load<Values>(totals + i); });
    }
  });
}
