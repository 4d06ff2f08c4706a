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

// What an element of a mask says of its key: compared as integers, without instructions for its type.
template <class Integer, Integer sign, Integer first_masked, Integer infinity>
struct Added {
  using Bits = Integer;
  static bool keeps(Bits bits) { return static_cast<Bits>(bits & ~sign) == 0; }
  // From the first masked one to -inf; NaNs are behind it.
  static bool masks(Bits bits) {
    return static_cast<Bits>(bits - first_masked) <= infinity - first_masked;
  }
};
using Float32 = Added<uint32_t, 0x80000000, 0xc76a6000, 0xff800000>;
using BFloat16 = Added<uint16_t, 0x8000, 0xc76b, 0xff80>;
using Float16 = Added<uint16_t, 0x8000, 0xfb53, 0xfc00>;
struct Bool {
  using Bits = uint8_t;
};

template <class Number>
__attribute__((optimize("O3"))) Scanned scan_64(const typename Number::Bits* from) {
  // Masks are made of runs.
  if (std::memcmp(from, from + 1, 63 * sizeof *from) == 0) {
    const bool keeps = Number::keeps(*from), masks = Number::masks(*from);
    return {keeps ? all_keys : 0, keeps || masks ? 0 : all_keys};
  }
  uint8_t kept[64], masked[64];
  for (int i = 0; i < 64; ++i) {
    kept[i] = Number::keeps(from[i]);
    masked[i] = Number::masks(from[i]);
  }
  const uint64_t bits = bits_of_bytes(kept);
  return {bits, ~(bits | bits_of_bytes(masked))};
}
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
    // Words of a column lie together, those of a row in different sets of a cache.
    constexpr int64_t step = SC_TILE + 8;
    std::vector<uint64_t> kept(shape.words() * step), biased(shape.words());
    bool needs_bias = false;
    for (int64_t i = 0; i < queries; ++i) {
      uint64_t any = 0;
      scan_row<Number>(first + i * mask.stride(2), shape.kv, [&](int64_t word, Scanned found) {
        any |= kept[word * step + i] = found.kept;
        biased[word] |= found.biased;
      });
      needs_bias |= is_added && !any;
    }
    for (int64_t column = 0; column < shape.words(); ++column) {
      if (needs_bias || biased[column])
        out.keep(column, SC_BIASED);
      else
        out.keep_if_any(column, &kept[column * step], queries, shape.keys(column));
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
  TORCH_CHECK(given.dim() == 4, "sparsecompile: a mask must be [batch, heads, q, kv], not ",
              given.sizes());
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
