// linear block[16x16]/float bfloat16 gelu_tanh
... 11 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
using Element = bfloat16;  // of x, bias, operands and y
... 12 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
  const int32_t* crow;
  const int32_t* col;
  const bfloat16* values;
... 7 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
    crow = reinterpret_cast<const int32_t*>(bytes + header.offsets[0]);
    col = reinterpret_cast<const int32_t*>(bytes + header.offsets[1]);
    values = reinterpret_cast<const bfloat16*>(bytes + header.offsets[2]);
... 5 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
// block[16x16]: blocks crow[r] .. crow[r + 1] of block row r, at columns col[block] * width, row-major.

namespace {

constexpr int block_height = 16, block_width = 16;
constexpr int column_padding = block_width - 1;
constexpr int slots_per_vector =
    block_width % native_floats == 0 ? native_floats : 16 < native_floats ? 16 : 1;
constexpr bool vectors_are_cheap = slots_per_vector > 1;

// The cursor is the next block.
SC_INLINE int64_t first_slot(const Weight& w, int64_t row) { return w.crow[row / block_height]; }

// One row of one block; a narrow block has one sum, so neighbours should have different ones.
template <int first, class Visit>
SC_INLINE void visit_block(const Weight& w, int64_t row, int64_t block, Visit&& visit) {
  int64_t column = static_cast<int64_t>(w.col[block]) * block_width;
  int64_t slot = (block * block_height + row % block_height) * block_width;
  for (int i = 0; i < block_width / 4; ++i, column += 4, slot += 4) {
    visit(lane<0>(), column, slot);
    visit(lane<1>(), column + 1, slot + 1);
    visit(lane<2>(), column + 2, slot + 2);
    visit(lane<3>(), column + 3, slot + 3);
  }
  for (int i = 0; i < block_width % 4; ++i) visit(lane<first>(), column + i, slot + i);
}

template <class Visit>
SC_INLINE void visit_row(const Weight& w, int64_t row, int64_t& cursor, int64_t, int64_t to,
                         Visit&& visit) {
  const int64_t end = w.crow[row / block_height + 1];
  const auto begins = [&](int64_t block) SC_INLINED {
    return block < end && static_cast<int64_t>(w.col[block]) * block_width < to;
  };
  int64_t block = cursor;
  if constexpr (block_width < 4) {
    for (; begins(block + 3); block += 4) {
      visit_block<0>(w, row, block, visit);
      visit_block<1>(w, row, block + 1, visit);
      visit_block<2>(w, row, block + 2, visit);
      visit_block<3>(w, row, block + 3, visit);
    }
  }
  for (; begins(block); ++block) visit_block<0>(w, row, block, visit);
  cursor = block;
... 4 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
                                 Visit&&) {
  constexpr int width = slots_per_vector, vectors = block_width / width;
  const int64_t end = w.crow[row / block_height + 1];
  int64_t block = first_slot(w, row);
  const auto step = [&](auto chain, int64_t at, int v) SC_INLINED {
    const int64_t column = static_cast<int64_t>(w.col[at]) * block_width + v * width;
    const int64_t slot = (at * block_height + row % block_height) * block_width + v * width;
    visit_vector(chain, slot,
                 [&](const float* x) SC_INLINED { return load<Floats<width>>(x + column); },
                 [&](int i) SC_INLINED { return column + i; });
  };
  for (; block + 4 <= end; block += 4) {
    for (int v = 0; v < vectors; ++v) {
      step(lane<0>(), block, v);
      step(lane<1>(), block + 1, v);
      step(lane<2>(), block + 2, v);
      step(lane<3>(), block + 3, v);
    }
  }
  for (; block < end; ++block)
    for (int v = 0; v < vectors; ++v) step(lane<0>(), block, v);
... 41 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
  value = value * logistic(value * (1.5957691216f + 0.0713548163f * value * value));  // gelu_tanh
... 12 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
