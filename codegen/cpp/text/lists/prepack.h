// From the canonical tensors of a Packed to the layout `lists` and back to the dense weight.

namespace {

// The rows of a block, dense: [block_rows][k].
struct DenseRows {
  int64_t k;
  Element* elements;

  explicit DenseRows(int64_t k) : k(k), elements(new Element[block_rows * k]) {}
  ~DenseRows() { delete[] elements; }
  DenseRows(const DenseRows&) = delete;
  DenseRows& operator=(const DenseRows&) = delete;

  void read(const Weight& w, int64_t block) {
    std::memset(elements, 0, sizeof(Element) * block_rows * k);
    for (int64_t i = 0; i < block_rows && block * block_rows + i < w.n; ++i) {
      const int64_t row = block * block_rows + i;
      int64_t cursor = first_slot(w, row);
      visit_row(w, row, cursor, 0, k, [&](auto, int64_t column, int64_t slot) SC_INLINED {
        const Bits bits = static_cast<Bits>(code(w, slot));
        if (column < k) elements[i * k + column] = bit_cast<Element>(bits);
      });
    }
  }
  SC_INLINE bool keeps(int64_t row, int64_t column) const {
    return bit_cast<Bits>(elements[row * k + column]) != 0;
  }
  int64_t count(int64_t row, Range columns) const {
    int64_t count = 0;
    for (int64_t c = columns.begin; c < columns.end; ++c) count += keeps(row, c);
    return count;
  }
};

// Write one block; where it ends.
inline char* write_block(const DenseRows& dense, Range columns, char* out) {
  int64_t counts[block_rows], ends[block_columns + 2] = {}, total = 0;
  for (int64_t row = 0; row < block_rows; ++row) {
    counts[row] = dense.count(row, columns);
    total += counts[row];
    ++ends[block_columns - counts[row] + 1];
  }
  // Sorted by counting: rows of equal length stay in their order.
  for (int64_t i = 0; i <= block_columns; ++i) ends[i + 1] += ends[i];
  uint8_t order[block_rows];
  for (int64_t row = 0; row < block_rows; ++row)
    order[ends[block_columns - counts[row]]++] = static_cast<uint8_t>(row);
  char* at = out + block_head;
  char* values = at + total;
  for (int64_t i = 0; i < block_rows; ++i) {
    const int64_t row = order[i];
    store(out + i * sizeof(uint16_t), static_cast<uint16_t>(counts[row]));
    for (int64_t c = columns.begin; c < columns.end; ++c) {
      if (!dense.keeps(row, c)) continue;
      *at++ = static_cast<char>(c - columns.begin);
      store(values, dense.elements[row * dense.k + c]);
      values += sizeof(Element);
    }
  }
  std::memcpy(out + block_rows * sizeof(uint16_t), order, block_rows);
  return values;
}

template <class Visit>
inline void for_each_row_block(const Weight& w, int64_t threads, Visit&& visit) {
  parallel(threads, [&](int64_t thread, int64_t of) {
    DenseRows dense(w.k);
    const Range part = share(ceil_div(w.n, block_rows), thread, of);
    for (int64_t b = part.begin; b < part.end; ++b) {
      dense.read(w, b);
      visit(dense, b);
    }
  });
}

}  // namespace

// Bytes of the layout for a canonical one; `sizes` gets the bytes of each row of blocks.
SC_EXPORT int64_t sc_prepack_size(const void* canonical, int64_t* sizes, int64_t threads) {
  const Weight w(canonical);
  const int64_t row_blocks = ceil_div(w.n, block_rows);
  const int64_t column_blocks = ColumnBlocks(w.k).count;
  for_each_row_block(w, threads, [&](const DenseRows& dense, int64_t b) {
    int64_t count = 0;
    for (int64_t row = 0; row < block_rows; ++row) count += dense.count(row, {0, w.k});
    sizes[b] = column_blocks * block_head + count * value_bytes;
  });
  int64_t bytes = sizeof(SCLayoutHeader) + slack;
  bytes += sizeof(int64_t) * row_blocks * (column_blocks + 1);
  for (int64_t b = 0; b < row_blocks; ++b) bytes += sizes[b];
  return bytes;
}

// Write the layout; `out` is as long as sc_prepack_size said.
SC_EXPORT void sc_prepack(const void* canonical, const int64_t* sizes, void* out, int64_t total,
                          int64_t layout, int64_t threads) {
  const Weight w(canonical);
  SCLayoutHeader& header = *static_cast<SCLayoutHeader*>(out);
  const int64_t row_blocks = ceil_div(w.n, block_rows);
  const ColumnBlocks columns(w.k);
  const int64_t column_blocks = columns.count;
  const int64_t offsets_bytes = sizeof(int64_t) * row_blocks * (column_blocks + 1);
  header = {};
  header.layout = layout;
  header.n = w.n;
  header.k = w.k;
  header.total_bytes = total;
  header.tensors = 2;
  header.offsets[0] = sizeof(SCLayoutHeader);
  header.offsets[1] = header.offsets[0] + offsets_bytes;
  int64_t bytes = 0;
  int64_t* offsets = reinterpret_cast<int64_t*>(static_cast<char*>(out) + header.offsets[0]);
  for (int64_t b = 0; b < row_blocks; ++b) {
    offsets[b * (column_blocks + 1)] = bytes;
    bytes += sizes[b];
  }
  std::memset(static_cast<char*>(out) + total - slack, 0, slack);
  header.slots = (bytes - row_blocks * column_blocks * block_head) / value_bytes;
  char* blocks = static_cast<char*>(out) + header.offsets[1];
  for_each_row_block(w, threads, [&](const DenseRows& dense, int64_t b) {
    int64_t* at = offsets + b * (column_blocks + 1);
    for (int64_t c = 0; c < column_blocks; ++c) {
      const int64_t begin = c * columns.width, end = begin + columns.width;
      at[c + 1] = write_block(dense, {begin, end < w.k ? end : w.k}, blocks + at[c]) - blocks;
    }
  });
}

namespace {

template <class Out>
void unpack(const Lists& w, int64_t first, int64_t rows, Out* out, int64_t threads) {
  std::memset(out, 0, sizeof(Out) * rows * w.k);
  const int64_t last = first + rows, first_block = first / block_rows;
  parallel(threads, [&](int64_t thread, int64_t of) {
    const Range part = share(ceil_div(last, block_rows) - first_block, thread, of);
    for (int64_t b = first_block + part.begin; b < first_block + part.end; ++b) {
      for (int64_t c = 0; c < w.column_blocks; ++c) {
        const Block block = w.block(b, c);
        block.visit([&](int64_t i, const uint8_t* columns, const char* values, int64_t count) {
          const int64_t row = b * block_rows + i;
          if (row < first || row >= last) return;
          Out* to = out + (row - first) * w.k + c * w.block_width;
          for (int64_t v = 0; v < count; ++v)
            to[columns[v]] = from_float<Out>(to_float(load<Element>(values + v * sizeof(Element))));
        });
      }
    }
  });
}

}  // namespace

// Rows of the dense weight, bit for bit.
SC_EXPORT void sc_unpack(const void* layout, int64_t first, int64_t rows, int64_t in_float32,
                         void* dense, int64_t threads) {
  const Lists w(layout);
  if (in_float32) return unpack(w, first, rows, static_cast<float*>(dense), threads);
  unpack(w, first, rows, static_cast<Element*>(dense), threads);
}
