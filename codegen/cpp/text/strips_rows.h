// Many rows of x as integers: the loops for few rows, again and again, while a strip of W and all of
// these rows stay in the second-level cache.

namespace {

// Where everything is in the workspace: rows of x, some at a time.
struct Workspace {
  int64_t rows, group_bytes;

  Workspace(const Strips& w, int64_t m)
      : group_bytes(ceil_div(FewRows::bytes(rows_together, w.k), 64) * 64) {
    const int64_t fitting = panel_bytes / 2 / group_bytes, all = ceil_div(m, rows_together);
    rows = (fitting < 1 ? 1 : fitting < all ? fitting : all) * rows_together;
  }
  int64_t bytes() const { return rows / rows_together * group_bytes; }
};

}  // namespace

SC_EXPORT int64_t sc_workspace(const void* weight, int64_t m, int64_t threads) {
  const Strips w(weight);
  const int64_t decode = m <= decode_rows ? decode_workspace(w) : 0;
  const int64_t bytes = Workspace(w, m).bytes(), batch = bytes * Share::copies(m, bytes, threads);
  return batch > decode ? batch : decode;
}

SC_EXPORT void sc_linear_batch(const SCLinearArguments* arguments) {
  const SCLinearArguments& a = *arguments;
  const Strips w(a.weight);
  const Workspace space(w, a.m);
  parallel(useful_threads(a, header_of(a.weight).slots * a.m), [&](int64_t thread, int64_t of) {
    const Share part(w, a.m, space.bytes(), thread, of);
    const int64_t packers = part.packers(of);
    char* memory = static_cast<char*>(a.workspace) + (part.by_rows ? thread * space.bytes() : 0);
    const auto group = [&](int64_t row) SC_INLINED {
      return FewRows(rows_together, w.k, memory + row / rows_together * space.group_bytes);
    };
    for (int64_t m0 = part.rows.begin; m0 < part.rows.end; m0 += space.rows) {
      const int64_t rows = m0 + space.rows < part.rows.end ? space.rows : part.rows.end - m0;
      const int64_t padded = ceil_div(rows, rows_together) * rows_together;
      const Range own = share(padded, thread % packers, packers);
      for (int64_t i = own.begin; i < own.end; ++i) {
        const Element* x = static_cast<const Element*>(a.x) + (m0 + i) * w.k;
        group(i).fill(i % rows_together, i < rows ? x : nullptr, w.k);
      }
      wait_for_threads(packers);
      for (Range strips = part.strips; strips.begin < strips.end; strips.begin += strips_together) {
        const int64_t end = strips.begin + strips_together;
        const Range some = {strips.begin, end < strips.end ? end : strips.end};
        for (int64_t i = 0; i < rows; i += rows_together) {
          const int64_t there = rows - i < rows_together ? rows - i : rows_together;
          decode_groups<rows_together, strips_together>(a, w, group(i), some, m0 + i, there);
        }
      }
      wait_for_threads(packers);
    }
  });
}
