// linear csr/float float16 sigmoid
// template: generic; schedule: batch_columns=128 batch_lanes=64 batch_rows=32 region_work=65536; target: cpu x86_64 avx512
// y[m, n] = epilogue(x[m, k] @ W[n, k].T + bias[n]); m, n and k are run-time values.

// ... arguments.h ...

// ... prelude.h ...

// ... numbers.h ...

namespace {

using Element = float16;  // of x, bias, operands and y
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
  const int32_t* crow;
  const int32_t* col;
  const float16* values;

  explicit Weight(const void* layout) {
    const char* bytes = static_cast<const char*>(layout);
    const SCLayoutHeader& header = *static_cast<const SCLayoutHeader*>(layout);
    n = header.n;
    k = header.k;
    slots = header.slots;
    crow = reinterpret_cast<const int32_t*>(bytes + header.offsets[0]);
    col = reinterpret_cast<const int32_t*>(bytes + header.offsets[1]);
    values = reinterpret_cast<const float16*>(bytes + header.offsets[2]);
  }
};

}  // namespace

// csr: the slots of a row are crow[row] .. crow[row + 1], their columns col[slot], ascending.

namespace {

constexpr int column_padding = 0;
constexpr int slots_per_vector = native_floats;
constexpr bool vectors_are_cheap = false;

SC_INLINE int64_t first_slot(const Weight& w, int64_t row) { return w.crow[row]; }

template <class Visit>
SC_INLINE void visit_row(const Weight& w, int64_t row, int64_t& cursor, int64_t, int64_t to,
                         Visit&& visit) {
  const int64_t end = w.crow[row + 1];
  int64_t slot = cursor;
  for (; slot + 4 <= end && w.col[slot + 3] < to; slot += 4) {
    visit(lane<0>(), w.col[slot], slot);
    visit(lane<1>(), w.col[slot + 1], slot + 1);
    visit(lane<2>(), w.col[slot + 2], slot + 2);
    visit(lane<3>(), w.col[slot + 3], slot + 3);
  }
  for (; slot < end && w.col[slot] < to; ++slot) visit(lane<0>(), w.col[slot], slot);
  cursor = slot;
}

template <class VisitVector, class Visit>
SC_INLINE void visit_row_vectors(const Weight& w, int64_t row, VisitVector&& visit_vector,
                                 Visit&& visit) {
  constexpr int width = slots_per_vector;
  const int64_t end = w.crow[row + 1];
  int64_t slot = w.crow[row];
  const auto step = [&](auto chain, int64_t at) SC_INLINED {
    visit_vector(chain, at,
                 [&](const float* x) SC_INLINED { return gather<width>(x, w.col + at); },
                 [&](int i) SC_INLINED { return int64_t{w.col[at + i]}; });
  };
  for (; slot + 4 * width <= end; slot += 4 * width) {
    step(lane<0>(), slot);
    step(lane<1>(), slot + width);
    step(lane<2>(), slot + 2 * width);
    step(lane<3>(), slot + 3 * width);
  }
  for (; slot + width <= end; slot += width) step(lane<0>(), slot);
  for (; slot < end; ++slot) visit(lane<0>(), w.col[slot], slot);
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
  value = logistic(value);  // sigmoid
  return value;
}

}  // namespace

// ... finish.h ...

// ... transpose.h ...

// ... generic.h ...
