// The end of a linear: bias, epilogue and the one rounding.

namespace {

constexpr int64_t row_tile = 16;  // rows of W finished together

// y[row0 .. row0 + rows) for `lanes` rows of x from m0. `sums` is [lanes][row_tile].
SC_SHARED void finish(const SCLinearArguments& a, int64_t n, Range rows, int64_t m0,
                      int64_t lanes, const float* sums) {
  const int64_t count = rows.end - rows.begin;
  float bias[row_tile] = {};
  if (a.bias) {
    for (int64_t r = 0; r < count; ++r)
      bias[r] = to_float(static_cast<const Element*>(a.bias)[rows.begin + r]);
  }
  const auto run = [&](auto size) SC_INLINED {
    for (int64_t j = 0; j < lanes; ++j) {
      const int64_t at = (m0 + j) * n + rows.begin;
      Element* y = static_cast<Element*>(a.y) + at;
      float operands[2][row_tile] = {};
      if constexpr (operand_count > 0)
        for (int64_t r = 0; r < size; ++r)
          operands[0][r] = to_float(static_cast<const Element*>(a.operand0)[at + r]);
      if constexpr (operand_count > 1)
        for (int64_t r = 0; r < size; ++r)
          operands[1][r] = to_float(static_cast<const Element*>(a.operand1)[at + r]);
      for (int64_t r = 0; r < size; ++r) {
        const float value = sums[j * row_tile + r] + bias[r];
        y[r] = from_float<Element>(epilogue(value, operands[0][r], operands[1][r]));
      }
    }
  };
  if (count == row_tile) {
    run(std::integral_constant<int64_t, row_tile>());
  } else {
    run(count);
  }
}

// Threads worth waking: a region costs some microseconds.
inline int64_t useful_threads(const SCLinearArguments& a, int64_t work) {
  return work < region_work ? 1 : a.threads;
}

}  // namespace

// y = epilogue(y), in place: what torch's dense linear leaves to do.
SC_EXPORT void sc_finish(const SCLinearArguments* arguments) {
  const SCLinearArguments& a = *arguments;
  const int64_t n = static_cast<const SCLayoutHeader*>(a.weight)->n, size = a.m * n;
  const auto element = [](const void* tensor, int64_t i) SC_INLINED {
    return to_float(static_cast<const Element*>(tensor)[i]);
  };
  Element* y = static_cast<Element*>(a.y);
  parallel(useful_threads(a, size * 16), [&](int64_t thread, int64_t of) {
    const Range part = share(size, thread, of);
    for (int64_t i = part.begin; i < part.end; ++i) {
      const float first = operand_count > 0 ? element(a.operand0, i) : 0.0f;
      const float second = operand_count > 1 ? element(a.operand1, i) : 0.0f;
      y[i] = from_float<Element>(epilogue(to_float(y[i]), first, second));
    }
  });
}
