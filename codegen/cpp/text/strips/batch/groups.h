// Many rows of x as integers, `rows_together` at a time: groups, as many as the second-level cache holds
// beside strips of W.

namespace {

struct Groups {
  int64_t rows, group_bytes, k;

  Groups(const Strips& w, int64_t m)
      : group_bytes(ceil_div(IntegerRows::bytes(rows_together, w.k), 64) * 64), k(w.k) {
    const int64_t fitting = panel_bytes / 2 / group_bytes, all = ceil_div(m, rows_together);
    rows = (fitting < 1 ? 1 : fitting < all ? fitting : all) * rows_together;
  }
  Room room(int64_t own) const { return {rows, rows / rows_together * group_bytes, own}; }

  // The group of a row, in memory of so many bytes.
  SC_INLINE IntegerRows group(char* memory, int64_t row) const {
    return IntegerRows(rows_together, k, memory + row / rows_together * group_bytes);
  }
  // A thread's share of the rows of x from m0 on, `there` of them; what a group has not is zero.
  void fill(const SCLinearArguments& a, int64_t m0, int64_t there, int64_t thread, int64_t threads,
            char* memory) const {
    const Range own = share(ceil_div(there, rows_together) * rows_together, thread, threads);
    for (int64_t i = own.begin; i < own.end; ++i) {
      const Element* x = static_cast<const Element*>(a.x) + (m0 + i) * k;
      group(memory, i).fill(i % rows_together, i < there ? x : nullptr, k);
    }
  }
};

// Strips times groups of rows from m0 on, by the loops for few rows: each time W is read anew.
inline void multiply_groups(const SCLinearArguments& a, const Strips& w, const Groups& groups,
                            char* x, Range strips, int64_t m0, int64_t rows) {
  for (; strips.begin < strips.end; strips.begin += strips_together) {
    const int64_t end = strips.begin + strips_together;
    const Range some = {strips.begin, end < strips.end ? end : strips.end};
    for (int64_t i = 0; i < rows; i += rows_together) {
      const int64_t there = rows - i < rows_together ? rows - i : rows_together;
      decode_groups<rows_together, strips_together>(a, w, groups.group(x, i), some, m0 + i, there);
    }
  }
}

}  // namespace
