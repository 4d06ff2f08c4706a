// Layout `lists`: the kept values of every row with their columns, block by block.
//
//   block    block_rows rows of W x some columns, block_columns at most and as evenly shared out as may
//            be; blocks of the same rows lie side by side
//   counts   [block_rows] uint16: how many values each row of the block keeps, most first: rows of
//            the same length follow one another, so that ends of loops are foreseen
//   rows     [block_rows] uint8: which row of the block each of them is
//   columns  uint8: inside the block, row after row
//   values   Element: the same
//
// A block begins at the byte that `offsets` says; nothing in it is aligned. Zeros are not kept.
// Behind the last block are `slack` bytes, so that a vector may be loaded where fewer values are left.

namespace {

static_assert(block_rows <= 256 && block_columns <= 256, "rows and columns of a block are bytes");
static_assert(block_columns % 16 == 0, "blocks are whole vectors of columns");

using Bits = std::conditional_t<sizeof(Element) == 4, uint32_t, uint16_t>;
constexpr int64_t slack = 64;
constexpr int64_t block_head = block_rows * (sizeof(uint16_t) + sizeof(uint8_t));
constexpr int64_t value_bytes = sizeof(uint8_t) + sizeof(Element);  // with its column

// A block as pointers.
struct Block {
  const char* counts;
  const uint8_t* rows;
  const uint8_t* columns;
  const char* values;

  SC_INLINE int64_t count(int64_t i) const { return load<uint16_t>(counts + i * sizeof(uint16_t)); }

  // Call visit(row, columns, values, count) for every list.
  template <class Visit>
  SC_INLINE void visit(Visit&& visit) const {
    const uint8_t* column = columns;
    const char* value = values;
    for (int64_t i = 0; i < block_rows && count(i); ++i) {
      const int64_t bytes = count(i) * static_cast<int64_t>(sizeof(Element));
      prefetch(column);
      visit(int64_t{rows[i]}, column, value, count(i));
      column += count(i);
      value += bytes;
    }
  }
};

// How columns are shared out: a last block of few of them would take almost as long as a whole one.
struct ColumnBlocks {
  int64_t count, width;

  explicit ColumnBlocks(int64_t k) : count(ceil_div(k, block_columns)) {
    width = count ? ceil_div(ceil_div(k, count), 16) * 16 : block_columns;
  }
};

// Of x, as many as blocks have, and behind the last block's as many as a block may have.
inline int64_t padded_columns(int64_t k) {
  const ColumnBlocks columns(k);
  return columns.count * columns.width + block_columns - columns.width;
}

struct Lists {
  int64_t n, k;
  int64_t row_blocks, column_blocks;
  int64_t block_width;     // columns of a block
  const int64_t* offsets;  // [row_blocks][column_blocks + 1]
  const char* blocks;

  explicit Lists(const void* layout) {
    const SCLayoutHeader& header = header_of(layout);
    const char* bytes = static_cast<const char*>(layout);
    n = header.n;
    k = header.k;
    row_blocks = ceil_div(n, block_rows);
    const ColumnBlocks columns(k);
    column_blocks = columns.count;
    block_width = columns.width;
    offsets = reinterpret_cast<const int64_t*>(bytes + header.offsets[0]);
    blocks = bytes + header.offsets[1];
  }

  SC_INLINE Block block(int64_t row_block, int64_t column_block) const {
    const int64_t* at = offsets + row_block * (column_blocks + 1) + column_block;
    const char* begin = blocks + at[0];
    const int64_t count = (at[1] - at[0] - block_head) / value_bytes;
    const auto* rows = reinterpret_cast<const uint8_t*>(begin + block_rows * sizeof(uint16_t));
    const uint8_t* columns = rows + block_rows;
    return {begin, rows, columns, reinterpret_cast<const char*>(columns + count)};
  }
};

}  // namespace
