// sparsecompile::interval_mask: the BlockMask of an interval of keys for every query, of keys that are
// kept, and of queries and keys that have the same id.

namespace {

struct Bounds {
  int64_t least = std::numeric_limits<int64_t>::max(), most = std::numeric_limits<int64_t>::min();

  void include(int64_t value) {
    least = std::min(least, value);
    most = std::max(most, value);
  }
  bool meets(const Bounds& other) const { return least <= other.most && other.least <= most; }
  bool is_one(const Bounds& other) const { return least == other.most && most == other.least; }
};

// Where a tensor [batch, heads, q] or [batch, length] has a row: batches and heads of 1 serve all.
template <class T>
struct RowsOf {
  const T* data = nullptr;
  int64_t batch = 0, head = 0;

  RowsOf() = default;
  explicit RowsOf(const Tensor& tensor)
      : data(tensor.const_data_ptr<T>()),
        batch(tensor.size(0) == 1 ? 0 : tensor.stride(0)),
        head(tensor.dim() < 3 || tensor.size(1) == 1 ? 0 : tensor.stride(1)) {}
  const T* at(int64_t b, int64_t h) const { return data + b * batch + h * head; }
};

// Of every 64 keys a batch entry's bits that are kept, and bounds of their ids.
struct KeyColumn {
  uint64_t kept;
  Bounds ids;
};

struct Intervals {
  MaskShape shape;
  RowsOf<int32_t> low, high;
  RowsOf<bool> keep;
  RowsOf<int64_t> q_ids, kv_ids;

  std::vector<KeyColumn> columns(int64_t b) const {
    std::vector<KeyColumn> result(shape.words());
    for (int64_t column = 0; column < shape.words(); ++column) {
      const int64_t first = column * SC_TILE, end = std::min(first + SC_TILE, shape.kv);
      KeyColumn& each = result[column];
      each.kept = shape.keys(column);
      for (int64_t key = first; key < end; ++key) {
        if (keep.data && !keep.at(b, 0)[key]) each.kept &= ~(uint64_t{1} << (key - first));
        if (kv_ids.data) each.ids.include(kv_ids.at(b, 0)[key]);
      }
    }
    return result;
  }
  // Keys of a column that a query attends to.
  uint64_t keys(int64_t b, int64_t h, int64_t query, int64_t column, const KeyColumn& there) const {
    const int64_t first = column * SC_TILE;
    uint64_t bits = there.kept & bits_between(low.at(b, h)[query] - first, high.at(b, h)[query] - first);
    if (!q_ids.data) return bits;
    const int64_t id = q_ids.at(b, 0)[query];
    const int64_t* ids = kv_ids.at(b, 0) + first;
    for (uint64_t left = bits; left; left &= left - 1) {
      const int key = __builtin_ctzll(left);
      if (ids[key] != id) bits ^= uint64_t{1} << key;
    }
    return bits;
  }
};

Tensor interval_words(const Intervals& of, const std::vector<std::vector<KeyColumn>>& columns) {
  const MaskShape& shape = of.shape;
  const MaskLayout layout(shape, 0, 0, false);
  uint64_t* words = layout.bits();
  for (int64_t i = 0; i < shape.masks() * shape.q; ++i) {
    const int64_t which = i / shape.q, b = which / shape.heads;
    for (int64_t column = 0; column < shape.words(); ++column)
      *words++ = of.keys(b, which % shape.heads, i % shape.q, column, columns[b][column]);
  }
  return layout.view();
}

Tensor interval_tiles(const Intervals& of, const std::vector<std::vector<KeyColumn>>& columns) {
  const MaskShape& shape = of.shape;
  return build_tiles(shape, [&](int64_t which, int64_t row, MaskRow& out) {
    const int64_t b = which / shape.heads, h = which % shape.heads;
    const int64_t first = row * SC_TILE, queries = shape.queries(row);
    Bounds low, high, ids;
    for (int64_t i = first; i < first + queries; ++i) {
      const int64_t from = std::max(of.low.at(b, h)[i], 0);
      const int64_t to = std::min<int64_t>(of.high.at(b, h)[i], shape.kv);
      low.include(from);
      high.include(to);
      if (of.q_ids.data) ids.include(of.q_ids.at(b, 0)[i]);
    }
    for (int64_t column = low.least / SC_TILE; column * SC_TILE < high.most; ++column) {
      const KeyColumn& there = columns[b][column];
      const int64_t begin = column * SC_TILE, end = std::min(begin + SC_TILE, shape.kv);
      if (!there.kept || (of.q_ids.data && !ids.meets(there.ids))) continue;
      uint64_t words[SC_TILE] = {};
      // All queries attend to what is kept of these keys: then nothing is looked at one by one.
      if (low.most <= begin && end <= high.least && (!of.q_ids.data || ids.is_one(there.ids))) {
        std::fill_n(words, queries, there.kept);
      } else {
        for (int64_t i = 0; i < queries; ++i) words[i] = of.keys(b, h, first + i, column, there);
      }
      out.keep_if_any(column, words, queries, shape.keys(column));
    }
  });
}

// A part of the mask, with a dtype and as many dimensions; its rows contiguous.
Tensor checked(const Tensor& part, const char* name, at::ScalarType dtype, int64_t dims) {
  TORCH_CHECK(part.scalar_type() == dtype && part.dim() == dims, "sparsecompile: ", name,
              " of a mask must be ", dtype, " with ", dims, " dimensions, not ", part.scalar_type(),
              " ", part.sizes());
  return part.stride(-1) == 1 || part.size(-1) <= 1 ? part : part.contiguous();
}

Tensor interval_mask_cpu(const Tensor& low, const Tensor& high, const OptionalTensor& keep,
                         const OptionalTensor& q_ids, const OptionalTensor& kv_ids, int64_t kv) {
  const Tensor from = checked(low, "low", at::kInt, 3), to = checked(high, "high", at::kInt, 3);
  Intervals of{{1, 1, from.size(2), kv}, RowsOf<int32_t>(from), RowsOf<int32_t>(to), {}, {}, {}};
  // Sizes of 1 serve all; the others must agree.
  const auto agree = [&](int64_t& size, int64_t other, const char* name) {
    if (size == 1) size = other;
    TORCH_CHECK(other == 1 || other == size, "sparsecompile: ", name, " of a mask has ", other,
                " batch entries or heads, another part ", size);
  };
  const auto fit = [&](const Tensor& part, const char* name, int64_t length) {
    agree(of.shape.batch, part.size(0), name);
    TORCH_CHECK(part.size(-1) == length, "sparsecompile: ", name, " of a mask has shape ",
                part.sizes(), ", its last dimension must be ", length);
  };
  for (const Tensor* part : {&from, &to}) {
    const char* name = part == &from ? "low" : "high";
    fit(*part, name, of.shape.q);
    agree(of.shape.heads, part->size(1), name);
  }
  Tensor kept, q_groups, kv_groups;
  if (given(keep)) {
    kept = checked(*keep, "keep", at::kBool, 2);
    fit(kept, "keep", kv);
    of.keep = RowsOf<bool>(kept);
  }
  TORCH_CHECK(given(q_ids) == given(kv_ids), "sparsecompile: a mask has ids of ",
              given(q_ids) ? "queries" : "keys", " alone; give both or none");
  if (given(q_ids)) {
    q_groups = checked(*q_ids, "q_ids", at::kLong, 2);
    kv_groups = checked(*kv_ids, "kv_ids", at::kLong, 2);
    fit(q_groups, "q_ids", of.shape.q);
    fit(kv_groups, "kv_ids", kv);
    of.q_ids = RowsOf<int64_t>(q_groups);
    of.kv_ids = RowsOf<int64_t>(kv_groups);
  }
  std::vector<std::vector<KeyColumn>> columns;
  for (int64_t b = 0; b < of.shape.batch; ++b) columns.push_back(of.columns(b));
  return of.shape.has_tiles() ? interval_tiles(of, columns) : interval_words(of, columns);
}

}  // namespace

TORCH_LIBRARY_IMPL(sparsecompile, CPU, m) { m.impl("interval_mask", &interval_mask_cpu); }
