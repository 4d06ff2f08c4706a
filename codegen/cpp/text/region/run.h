SC_EXPORT void sc_region(const SCRegion* of) {
  const SCRegion& region = *of;
  Barrier barrier;
  parallel(region.threads, [&](int64_t thread, int64_t threads) {
    const Sources sources{region, thread};
    for (int64_t i = 0; i < region.count; ++i) {
      // Of linears that others have finished.
      if (i > 0) barrier.wait(threads);
      rows_of(i, region.m, sources);
      run_linear(region, region.stages[i], sources, threads);
    }
  });
}

SC_EXPORT void sc_region_rows(const SCRegion* region, int64_t stage) {
  rows_of(stage, region->m, Sources{*region, 0});
}
