// linear dense/float float32
// template: generic; schedule: batch_columns=128 batch_lanes=64 batch_rows=32 region_work=65536; target: cpu x86_64 avx512
// y[m, n] = epilogue(x[m, k] @ W[n, k].T + bias[n]); m, n and k are run-time values.

// ... arguments.h ...

// ... prelude.h ...

// ... numbers.h ...

namespace {

using Element = float;  // of x, bias, operands and y
using Scale = bfloat16;  // of values of W, where these have scales
constexpr int operand_count = 0;

// Schedule.
constexpr int64_t batch_columns = 128;
constexpr int64_t batch_lanes = 64;
constexpr int64_t batch_rows = 32;
constexpr int64_t region_work = 65536;

// The weight, as the pointers in its layout.
struct Weight {
  int64_t n, k, slots;
  const float* values;

  explicit Weight(const void* layout) {
    const char* bytes = static_cast<const char*>(layout);
    const SCLayoutHeader& header = *static_cast<const SCLayoutHeader*>(layout);
    n = header.n;
    k = header.k;
    slots = header.slots;
    values = reinterpret_cast<const float*>(bytes + header.offsets[0]);
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

// float: values as they are.

namespace {

SC_INLINE float decode(const Weight& w, int64_t, int64_t, int64_t slot) {
  return to_float(w.values[slot]);
}

template <int count, class Column>
SC_INLINE Floats<count> decode_vector(const Weight& w, int64_t, int64_t slot, Column&&) {
  prefetch(w.values + slot);
  return load_floats<count>(w.values + slot);
}

SC_INLINE uint32_t code(const Weight& w, int64_t slot) {
  if constexpr (sizeof(Element) == 4) return load<uint32_t>(w.values + slot);
  return load<uint16_t>(w.values + slot);
}

}  // namespace

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

// ... finish.h ...

// ... turn.h ...

// ... transpose.h ...

// ... generic.h ...
