// Many rows of x as integers: the loops for few rows, again and again, while a strip of W and all of
// these rows stay in the second-level cache.

SC_EXPORT int64_t sc_workspace(const void* weight, int64_t m, int64_t threads) {
  const Strips w(weight);
  const int64_t decode = m <= decode_rows ? decode_workspace(w, m) : 0;
  const int64_t bytes = Groups(w, m).bytes(), batch = bytes * Share::copies(m, bytes, threads);
  return batch > decode ? batch : decode;
}

SC_EXPORT void sc_linear_batch(const SCLinearArguments* arguments) {
  const SCLinearArguments& a = *arguments;
  const Strips w(a.weight);
  const Groups groups(w, a.m);
  parallel(useful_threads(a, header_of(a.weight).slots * a.m), [&](int64_t thread, int64_t of) {
    const Share part(w, a.m, groups.bytes(), thread, of);
    const int64_t packers = part.packers(of);
    char* x = static_cast<char*>(a.workspace) + (part.by_rows ? thread * groups.bytes() : 0);
    for (int64_t m0 = part.rows.begin; m0 < part.rows.end; m0 += groups.rows) {
      const int64_t rows = m0 + groups.rows < part.rows.end ? groups.rows : part.rows.end - m0;
      groups.fill(a, m0, rows, thread % packers, packers, x);
      wait_for_threads(packers);
      multiply_groups(a, w, groups, x, part.strips, m0, rows);
      wait_for_threads(packers);
    }
  });
}
