// How threads share out many rows of x: panel by panel, of which x is packed first.

namespace {

// What a batch takes of the workspace.
struct Room {
  int64_t rows;        // of x, packed at once
  int64_t packed;      // bytes that these take
  int64_t own;         // bytes of each thread beside them
  bool shares_rows = true;  // whether threads may have different rows: then each goes through all of W
};

// What falls to one of the threads: all rows of x, of some strips; or some rows where there are
// enough, since then the core that packs them reads them, and nobody waits.
struct Share {
  Range strips, rows;
  int64_t packer, packers;  // which of those that pack the same rows it is
  char* packed;
  char* own;

  Share(const SCLinearArguments& a, const Strips& w, const Room& room, int64_t thread, int64_t threads)
      : strips{0, w.strips}, rows{0, a.m}, packer(0), packers(1) {
    const bool by_rows = threads <= most_copies(a.m, room);
    if (by_rows) {
      rows = share(ceil_div(a.m, row_step), thread, threads);
      rows = {rows.begin * row_step, rows.end * row_step < a.m ? rows.end * row_step : a.m};
    } else {
      strips = share(w.strips, thread, threads);
      packer = thread;
      packers = threads;
    }
    packed = static_cast<char*>(a.workspace) + (by_rows ? thread * room.packed : 0);
    own = static_cast<char*>(a.workspace) + (by_rows ? threads : 1) * room.packed + thread * room.own;
  }

  // How many threads pack x for themselves, at most.
  static int64_t most_copies(int64_t m, const Room& room) {
    if (!room.shares_rows) return 0;
    const int64_t by_bytes = most_bytes / (room.packed ? room.packed : 1), by_m = m / least_rows;
    return by_bytes < by_m ? by_bytes : by_m;
  }

 private:
  static constexpr int64_t most_bytes = int64_t{32} << 20, least_rows = 64, row_step = 32;
};

// Bytes for m rows of x.
inline int64_t workspace_bytes(const Strips& w, int64_t m, int64_t threads, const Room& room) {
  const int64_t most = Share::most_copies(m, room), copies = most < 1 ? 1 : most < threads ? most : threads;
  const int64_t decode = m <= decode_rows ? decode_workspace(w, m) : 0;
  const int64_t batch = copies * room.packed + threads * room.own;
  return batch > decode ? batch : decode;
}

// Call run(part, m0, rows) for every panel of every thread's part.
template <class Run>
inline void for_each_panel(const SCLinearArguments& a, const Strips& w, const Room& room, Run&& run) {
  parallel(useful_threads(a, header_of(a.weight).slots * a.m), [&](int64_t thread, int64_t of) {
    const Share part(a, w, room, thread, of);
    for (int64_t m0 = part.rows.begin; m0 < part.rows.end; m0 += room.rows) {
      run(part, m0, m0 + room.rows < part.rows.end ? room.rows : part.rows.end - m0);
      wait_for_threads(part.packers);
    }
  });
}

}  // namespace
