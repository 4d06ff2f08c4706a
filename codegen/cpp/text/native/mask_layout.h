// BlockMasks as they are built: see sparsecompile/masks/block_mask.py, which defines them.
#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>
#include <numeric>

namespace {

constexpr uint64_t all_keys = ~uint64_t{0};

int64_t tiles_over(int64_t length) { return (length + SC_TILE - 1) / SC_TILE; }

// Bits [begin, end) of a word; those that it does not have are left out.
uint64_t bits_between(int64_t begin, int64_t end) {
  begin = std::max<int64_t>(begin, 0);
  end = std::min<int64_t>(end, 64);
  if (begin >= end) return 0;
  return all_keys >> (64 - (end - begin)) << begin;
}

struct MaskShape {
  int64_t batch, heads, q, kv;

  bool has_tiles() const { return q > SC_FEW_QUERIES; }
  int64_t rows() const { return tiles_over(q); }
  int64_t words() const { return tiles_over(kv); }
  int64_t masks() const { return batch * heads; }
  // How many rows of the mask there are in a row of tiles.
  int64_t queries(int64_t row) const { return std::min(SC_TILE, q - row * SC_TILE); }
  // Bits of the keys of a column of tiles that there are.
  uint64_t keys(int64_t column) const { return bits_between(0, kv - column * SC_TILE); }
};

// A layout whose tensors are zero, and their addresses.
struct MaskLayout {
  Tensor memory;
  SCBlockMask* header;

  MaskLayout(const MaskShape& shape, int64_t kept, int64_t partial, bool is_biased) {
    SCBlockMask mask{};
    mask.form = shape.has_tiles() ? 1 : 2;
    mask.batch = shape.batch;
    mask.heads = shape.heads;
    mask.q = shape.q;
    mask.kv = shape.kv;
    mask.kept = kept;
    mask.partial = shape.has_tiles() ? partial : shape.batch;
    mask.is_biased = is_biased;
    int64_t end = sizeof mask;
    const auto place = [&](int64_t bytes) {
      const int64_t offset = end;
      end += (bytes + 63) / 64 * 64;
      return offset;
    };
    mask.starts = place(shape.has_tiles() ? 4 * (shape.masks() * shape.rows() + 1) : 0);
    mask.tiles = place(4 * kept);
    mask.kinds = place(4 * kept);
    mask.bits = place(shape.has_tiles() ? 8 * SC_TILE * partial
                                        : 8 * shape.masks() * shape.q * shape.words());
    mask.total_bytes = end;
    memory = at::zeros({end}, at::dtype(at::kByte));
    header = static_cast<SCBlockMask*>(memory.mutable_data_ptr());
    *header = mask;
  }

  int32_t* numbers(int64_t offset) const {
    return reinterpret_cast<int32_t*>(reinterpret_cast<char*>(header) + offset);
  }
  uint64_t* bits() const {
    return reinterpret_cast<uint64_t*>(reinterpret_cast<char*>(header) + header->bits);
  }
  Tensor view() const { return memory.narrow(0, 0, sizeof *header); }
};

// bits[i] bit j becomes bits[j] bit i (Warren, Hacker's Delight, 7-3).
void turn_bits(uint64_t* bits) {
  uint64_t mask = 0xffffffff;
  for (int64_t step = 32; step; step >>= 1, mask ^= mask << step) {
    for (int64_t i = 0; i < 64; i = ((i | step) + 1) & ~step) {
      const uint64_t changed = (bits[i] >> step ^ bits[i | step]) & mask;
      bits[i] ^= changed << step;
      bits[i | step] ^= changed;
    }
  }
}

// A row of tiles while its number of tiles is not known. Bits follow each other, one row of them for each
// kind that is not negative.
struct MaskRow {
  std::vector<int32_t> tiles, kinds;
  std::vector<uint64_t> bits;

  void keep(int64_t column, int32_t kind) {
    tiles.push_back(static_cast<int32_t>(column));
    kinds.push_back(kind);
  }
  // By words for keys, of which each has a bit for every query.
  void keep_bits(int64_t column, const uint64_t* words) {
    keep(column, 0);
    bits.insert(bits.end(), words, words + SC_TILE);
  }
  // By words for `queries` queries, of which each has a bit for every key of those that are there.
  void keep_if_any(int64_t column, const uint64_t* words, int64_t queries, uint64_t there) {
    const uint64_t any = std::accumulate(words, words + queries, uint64_t{0}, std::bit_or<>());
    const uint64_t all = std::accumulate(words, words + queries, all_keys, std::bit_and<>());
    if (all == there) return keep(column, SC_FULL);
    if (!any) return;
    uint64_t turned[SC_TILE] = {};
    std::copy_n(words, queries, turned);
    turn_bits(turned);
    keep_bits(column, turned);
  }
};

// Build every row of tiles, in parallel, and lay them out: build(mask, row, out).
template <class Build>
Tensor build_tiles(const MaskShape& shape, Build&& build) {
  std::vector<MaskRow> rows(shape.masks() * shape.rows());
  at::parallel_for(0, rows.size(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) build(i / shape.rows(), i % shape.rows(), rows[i]);
  });
  int64_t kept = 0, partial = 0;
  bool is_biased = false;
  for (const MaskRow& row : rows) {
    kept += row.tiles.size();
    partial += row.bits.size() / SC_TILE;
    is_biased |= std::count(row.kinds.begin(), row.kinds.end(), SC_BIASED) > 0;
  }
  const MaskLayout layout(shape, kept, partial, is_biased);
  const SCBlockMask& header = *layout.header;
  int32_t* starts = layout.numbers(header.starts);
  int32_t* kinds = layout.numbers(header.kinds);
  int32_t next = 0;
  uint64_t* bits = layout.bits();
  for (const MaskRow& row : rows) {
    std::copy(row.tiles.begin(), row.tiles.end(), layout.numbers(header.tiles) + *starts);
    for (const int32_t kind : row.kinds) *kinds++ = kind < 0 ? kind : next++;
    bits = std::copy(row.bits.begin(), row.bits.end(), bits);
    starts[1] = starts[0] + static_cast<int32_t>(row.tiles.size());
    ++starts;
  }
  return layout.view();
}

}  // namespace
