// sparsecompile::scan_mask: the BlockMask of a mask that is there, bool or what is added to scores.

namespace {

// What is at most -60000 masks a key, whatever the score: the least float16 is -65504.

// Of 64 keys, those that count as they are, and those to whose scores something is added.
struct Scanned {
  uint64_t kept, biased;
};

// Bits from 64 bytes that are 0 or 1.
inline uint64_t bits_of_bytes(const uint8_t* bytes) {
  uint64_t bits = 0;
  for (int i = 0; i < 8; ++i) {
    uint64_t eight;
    std::memcpy(&eight, bytes + 8 * i, 8);
    bits |= (eight * 0x0102040810204080 >> 56) << 8 * i;
  }
  return bits;
}

// Numbers as integers, to compare without instructions for their type.
struct Float32 {
  using Bits = uint32_t;
  static constexpr Bits sign = 0x80000000, masked = 0xc76a6000, infinity = 0xff800000;
};
struct BFloat16 {
  using Bits = uint16_t;
  static constexpr Bits sign = 0x8000, masked = 0xc76b, infinity = 0xff80;
};
struct Float16 {
  using Bits = uint16_t;
  static constexpr Bits sign = 0x8000, masked = 0xfb53, infinity = 0xfc00;
};

template <class Number>
__attribute__((optimize("O3"))) Scanned scan_64(const typename Number::Bits* from) {
  uint8_t zero[64], masked[64];
  for (int i = 0; i < 64; ++i) {
    using Bits = typename Number::Bits;
    zero[i] = static_cast<Bits>(from[i] & ~Number::sign) == 0;
    // From the first masked one to -inf; NaNs are behind it.
    masked[i] = static_cast<Bits>(from[i] - Number::masked) <= Number::infinity - Number::masked;
  }
  const uint64_t kept = bits_of_bytes(zero);
  return {kept, ~(kept | bits_of_bytes(masked))};
}

struct Bool {
  using Bits = uint8_t;
};
template <>
Scanned scan_64<Bool>(const uint8_t* from) {
  return {bits_of_bytes(from), 0};
}

// scan(word, kept and biased keys) for a row of the mask.
template <class Number, class Scan>
void scan_row(const typename Number::Bits* row, int64_t kv, Scan&& scan) {
  for (int64_t word = 0; word < kv / 64; ++word) scan(word, scan_64<Number>(row + 64 * word));
  if (kv % 64 == 0) return;
  typename Number::Bits last[64] = {};
  std::copy_n(row + kv / 64 * 64, kv % 64, last);
  const Scanned found = scan_64<Number>(last);
  const uint64_t there = bits_between(0, kv % 64);
  scan(kv / 64, Scanned{found.kept & there, found.biased & there});
}

// A query to which no key counts as it is attends to all of them alike, if what is added is finite: then
// it is to be read.
template <class Number>
Tensor scan_tiles(const Tensor& mask, const MaskShape& shape) {
  const auto* data = static_cast<const typename Number::Bits*>(mask.const_data_ptr());
  constexpr bool is_added = !std::is_same_v<Number, Bool>;
  return build_tiles(shape, [&](int64_t which, int64_t row, MaskRow& out) {
    const int64_t queries = shape.queries(row);
    const auto* first = data + which / shape.heads * mask.stride(0) +
                        which % shape.heads * mask.stride(1) + row * SC_TILE * mask.stride(2);
    std::vector<uint64_t> kept(shape.words() * SC_TILE), biased(shape.words());
    bool needs_bias = false;
    for (int64_t i = 0; i < queries; ++i) {
      uint64_t any = 0;
      scan_row<Number>(first + i * mask.stride(2), shape.kv, [&](int64_t word, Scanned found) {
        any |= kept[word * SC_TILE + i] = found.kept;
        biased[word] |= found.biased;
      });
      needs_bias |= is_added && !any;
    }
    for (int64_t column = 0; column < shape.words(); ++column) {
      if (needs_bias || biased[column])
        out.keep(column, SC_BIASED);
      else
        out.keep_if_any(column, &kept[column * SC_TILE], queries, shape.keys(column));
    }
  });
}

template <class Number>
Tensor scan_words(const Tensor& mask, const MaskShape& shape) {
  const auto* data = static_cast<const typename Number::Bits*>(mask.const_data_ptr());
  constexpr bool is_added = !std::is_same_v<Number, Bool>;
  const MaskLayout layout(shape, 0, 0, false);
  std::atomic<bool> is_biased{false};
  const int64_t rows = shape.masks() * shape.q;
  at::parallel_for(0, rows, 1 + (1 << 16) / (1 + shape.kv), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t which = i / shape.q;
      uint64_t* words = layout.bits() + i * shape.words();
      uint64_t kept = 0, biased = 0;
      scan_row<Number>(data + which / shape.heads * mask.stride(0) +
                           which % shape.heads * mask.stride(1) + i % shape.q * mask.stride(2),
                       shape.kv, [&](int64_t word, Scanned found) {
                         words[word] = found.kept | found.biased;
                         kept |= found.kept;
                         biased |= found.biased;
                       });
      if (biased || (is_added && !kept)) is_biased = true;
      if (is_added && !kept)
        for (int64_t word = 0; word < shape.words(); ++word) words[word] = shape.keys(word);
    }
  });
  layout.header->is_biased = is_biased;
  return layout.view();
}

template <class Number>
Tensor scan(const Tensor& mask, const MaskShape& shape) {
  return shape.has_tiles() ? scan_tiles<Number>(mask, shape) : scan_words<Number>(mask, shape);
}

Tensor scan_mask_cpu(const Tensor& given) {
  TORCH_CHECK(given.dim() == 4 && given.device().is_cpu(),
              "sparsecompile: a mask must have four dimensions on the CPU, [batch, heads, q, kv], not ",
              given.sizes(), " on ", given.device());
  Tensor mask = given;
  for (int64_t dim : {0, 1})
    if (mask.size(dim) > 1 && mask.stride(dim) == 0) mask = mask.narrow(dim, 0, 1);
  if (mask.stride(3) != 1) mask = mask.contiguous();
  const MaskShape shape{mask.size(0), mask.size(1), mask.size(2), mask.size(3)};
  switch (mask.scalar_type()) {
    case at::kBool:
      return scan<Bool>(mask, shape);
    case at::kFloat:
      return scan<Float32>(mask, shape);
    case at::kBFloat16:
      return scan<BFloat16>(mask, shape);
    case at::kHalf:
      return scan<Float16>(mask, shape);
    default:
      TORCH_CHECK(false, "sparsecompile: a mask must be bool, float32, bfloat16 or float16, not ",
                  mask.scalar_type());
  }
}

}  // namespace

TORCH_LIBRARY_IMPL(sparsecompile, CPU, m) { m.impl("scan_mask", &scan_mask_cpu); }
