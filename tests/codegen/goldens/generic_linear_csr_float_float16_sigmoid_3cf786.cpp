// linear csr/float float16 sigmoid
... 11 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
using Element = float16;  // of x, bias, operands and y
... 12 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
  const int32_t* crow;
  const int32_t* col;
  const float16* values;
... 7 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
    crow = reinterpret_cast<const int32_t*>(bytes + header.offsets[0]);
    col = reinterpret_cast<const int32_t*>(bytes + header.offsets[1]);
    values = reinterpret_cast<const float16*>(bytes + header.offsets[2]);
... 5 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
// csr: the slots of a row are crow[row] .. crow[row + 1], their columns col[slot], ascending.
... 5 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
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
... 6 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
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
... 41 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
  value = logistic(value);  // sigmoid
... 12 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
