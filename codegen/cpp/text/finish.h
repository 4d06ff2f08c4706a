// The end of a linear: bias, epilogue and the one rounding.

namespace {

constexpr int64_t row_tile = 16;  // rows of W finished together
using Values = Floats<native_floats>;

// `count` elements of a tensor from a place on, zero behind them. A whole vector of them, where
// `count` says so when it is compiled, is read as it is.
template <class Count>
SC_INLINE Values load_values(const void* tensor, int64_t at, Count count) {
  const Element* from = static_cast<const Element*>(tensor) + at;
  if constexpr (std::is_same_v<Count, lane<native_floats>>) {
    return load_floats<native_floats>(from);
  } else {
    Element padded[native_floats] = {};
    std::memcpy(padded, from, sizeof(Element) * count);
    return load_floats<native_floats>(padded);
  }
}

// y[at .. at + count) = epilogue(value)
template <class Count>
SC_INLINE void finish_values(const SCLinearArguments& a, int64_t at, Count count, Values value) {
  Values operands[2] = {};
  if constexpr (operand_count > 0) operands[0] = load_values(a.operand0, at, count);
  if constexpr (operand_count > 1) operands[1] = load_values(a.operand1, at, count);
  value = epilogue(value, operands[0], operands[1]);
  Element* y = static_cast<Element*>(a.y) + at;
  if constexpr (std::is_same_v<Count, lane<native_floats>>) {
    store_floats<native_floats>(y, value);
  } else {
    Element padded[native_floats];
    store_floats<native_floats>(padded, value);
    std::memcpy(y, padded, sizeof(Element) * count);
  }
}

// Call run(first, count) for vectors of [0, size), the last of which may be cut off.
template <class Run>
SC_INLINE void with_values(int64_t size, Run&& run) {
  int64_t first = 0;
  for (; first + native_floats <= size; first += native_floats) run(first, lane<native_floats>());
  if (first < size) run(first, size - first);
}

// y[rows.begin .. rows.end) for `lanes` rows of x from m0; sum(j, first) gives the products of row j
// with rows of W from rows.begin + first on.
template <class Sum>
SC_INLINE void finish_sums(const SCLinearArguments& a, int64_t n, Range rows, int64_t m0,
                           int64_t lanes, Sum&& sum) {
  with_values(rows.end - rows.begin, [&](int64_t first, auto count) SC_INLINED {
    const int64_t row = rows.begin + first;
    const Values bias = a.bias ? load_values(a.bias, row, count) : Values{};
    for (int64_t j = 0; j < lanes; ++j)
      finish_values(a, (m0 + j) * n + row, count, sum(j, first) + bias);
  });
}

// The same for sums [lanes][row_tile] in memory.
SC_SHARED void finish(const SCLinearArguments& a, int64_t n, Range rows, int64_t m0,
                      int64_t lanes, const float* sums) {
  finish_sums(a, n, rows, m0, lanes, [&](int64_t j, int64_t first) SC_INLINED {
    return load<Values>(sums + j * row_tile + first);
  });
}

// Threads worth waking: a region costs some microseconds.
inline int64_t useful_threads(const SCLinearArguments& a, int64_t work) {
  return work < region_work ? 1 : a.threads;
}

// Run work(thread, threads) on threads worth waking; as a stage on those of the region, which have all
// come here.
template <class Work>
inline void parallel_stage(const SCLinearArguments& a, int64_t multiply_adds, Work&& work) {
  if (a.in_region) return work(a.thread, a.threads);
  parallel(useful_threads(a, multiply_adds), work);
}

}  // namespace

// y = epilogue(y), in place: what torch's dense linear leaves to do.
SC_EXPORT void sc_finish(const SCLinearArguments* arguments) {
  const SCLinearArguments& a = *arguments;
  const int64_t n = static_cast<const SCLayoutHeader*>(a.weight)->n, size = a.m * n;
  parallel(useful_threads(a, size * 16), [&](int64_t thread, int64_t of) {
    const Range part = share(size, thread, of);
    with_values(part.end - part.begin, [&](int64_t first, auto count) SC_INLINED {
      const int64_t at = part.begin + first;
      finish_values(a, at, count, load_values(a.y, at, count));
    });
  });
}
