// linear dense/int8 bfloat16
// template: generic; schedule: batch_columns=128 batch_lanes=64 batch_rows=32 region_work=65536; target: cpu x86_64 avx512
// y[m, n] = epilogue(x[m, k] @ W[n, k].T + bias[n]); m, n and k are run-time values.

// ... arguments.h ...

// ... prelude.h ...

namespace {

using Element = bfloat16;  // of x, bias, operands and y
constexpr int operand_count = 0;

// Schedule.
constexpr int64_t batch_columns = 128;
constexpr int64_t batch_lanes = 64;
constexpr int64_t batch_rows = 32;
constexpr int64_t region_work = 65536;

// The weight, as the pointers in its layout.
struct Weight {
  int64_t n, k, slots;
  const int8_t* values;
  const bfloat16* scales;

  explicit Weight(const void* layout) {
    const char* bytes = static_cast<const char*>(layout);
    const SCLayoutHeader& header = *static_cast<const SCLayoutHeader*>(layout);
    n = header.n;
    k = header.k;
    slots = header.slots;
    values = reinterpret_cast<const int8_t*>(bytes + header.offsets[0]);
    scales = reinterpret_cast<const bfloat16*>(bytes + header.offsets[1]);
  }
};

}  // namespace

// dense: the slot of a column is row * k + column.

namespace {

constexpr int column_padding = 0;
constexpr int slots_per_vector = native_floats;
constexpr bool vectors_are_cheap = true;

SC_INLINE int64_t first_slot(const Weight& w, int64_t row) { return row * w.k; }

template <class Visit>
SC_INLINE void visit_row(const Weight& w, int64_t row, int64_t&, int64_t from, int64_t to,
                         Visit&& visit) {
  const int64_t first = row * w.k;
  int64_t column = from;
  for (; column + 4 <= to; column += 4) {
    visit(lane<0>(), column, first + column);
    visit(lane<1>(), column + 1, first + column + 1);
    visit(lane<2>(), column + 2, first + column + 2);
    visit(lane<3>(), column + 3, first + column + 3);
  }
  for (; column < to; ++column) visit(lane<0>(), column, first + column);
}

template <class VisitVector, class Visit>
SC_INLINE void visit_row_vectors(const Weight& w, int64_t row, VisitVector&& visit_vector,
                                 Visit&& visit) {
  constexpr int width = slots_per_vector;
  const int64_t first = row * w.k;
  int64_t column = 0;
  const auto step = [&](auto chain, int64_t at) SC_INLINED {
    visit_vector(chain, first + at,
                 [&](const float* x) SC_INLINED { return load<Floats<width>>(x + at); },
                 [&](int i) SC_INLINED { return at + i; });
  };
  for (; column + 4 * width <= w.k; column += 4 * width) {
    step(lane<0>(), column);
    step(lane<1>(), column + width);
    step(lane<2>(), column + 2 * width);
    step(lane<3>(), column + 3 * width);
  }
  for (; column + width <= w.k; column += width) step(lane<0>(), column);
  for (; column < w.k; ++column) visit(lane<0>(), column, first + column);
}

}  // namespace

// int8: an integer of 8 bits times the scale of its row.

namespace {

SC_INLINE float scale_of(const Weight& w, int64_t row, int64_t) {
  return to_float(w.scales[row]);
}

template <int count, class Column>
SC_INLINE Floats<count> scales_of(const Weight& w, int64_t row, Column&&) {
  return Floats<count>{} + scale_of(w, row, 0);
}

SC_INLINE int integer_at(const Weight& w, int64_t slot) { return w.values[slot]; }

SC_INLINE uint32_t code(const Weight& w, int64_t slot) {
  return static_cast<uint8_t>(w.values[slot]) ^ 128u;
}

template <int count>
SC_INLINE Floats<count> integers_at(const Weight& w, int64_t slot) {
  prefetch(w.values + slot);
  return __builtin_convertvector(load<Vector<int8_t, count>>(w.values + slot), Floats<count>);
}

SC_INLINE float decode(const Weight& w, int64_t row, int64_t column, int64_t slot) {
  return static_cast<float>(integer_at(w, slot)) * scale_of(w, row, column);
}

template <int count, class Column>
SC_INLINE Floats<count> decode_vector(const Weight& w, int64_t row, int64_t slot, Column&& column) {
  return integers_at<count>(w, slot) * scales_of<count>(w, row, column);
}

}  // namespace

// ... activations.h ...

namespace {

constexpr bool rounds_activations = false;

}  // namespace

// ... round.h ...

namespace {

SC_INLINE float epilogue(float value, [[maybe_unused]] float operand0,
                         [[maybe_unused]] float operand1) {
  return value;
}

}  // namespace

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

// ... generic.h ...
