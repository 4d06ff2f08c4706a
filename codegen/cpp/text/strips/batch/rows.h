// Many rows of x as integers: the loops for few rows, again and again, while a strip of W and all of
// these rows stay in the second-level cache.

SC_EXPORT int64_t sc_workspace(const void* weight, int64_t m, int64_t threads) {
  const Strips w(weight);
  return workspace_bytes(w, m, threads, Groups(w, m).room(0));
}

SC_EXPORT void sc_linear_batch(const SCLinearArguments* arguments) {
  const SCLinearArguments& a = *arguments;
  const Strips w(a.weight);
  const Groups groups(w, a.m);
  for_each_panel(a, w, groups.room(0), [&](const Share& part, int64_t m0, int64_t rows) {
    groups.fill(a, m0, rows, part.packer, part.packers, part.packed);
    wait_for_threads(part.packers);
    multiply_groups(a, w, groups, part.packed, part.strips, m0, rows);
  });
}
