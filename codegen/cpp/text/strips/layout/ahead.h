// What readers of the layout `strips` ask of memory before they need it.

namespace {

// Far enough for memory to answer, near enough for the first-level cache to keep it.
constexpr int64_t most_ahead = 4096;

// Where a reader's stream goes on some bytes later. Streams of small weights are hardly longer than
// that, so after the end of its strip comes the beginning of the one that it reads next; the
// hardware, which sees several streams and no more than a page of each, finds neither.
struct Lookahead {
  const char* end = nullptr;  // of the strip
  int64_t bytes = 0;          // how far ahead: no further than the strip is long
  int64_t jump = 0;           // from the end to where the reader goes on
  int64_t distance = 0;       // what is asked for, from where the reader is

  // A reader of `strip` that goes on with `next`, or, from `last` on, with nothing.
  SC_INLINE void open_strip(const Strips& w, int64_t strip, int64_t next, int64_t last) {
    const int64_t length = w.stream_end(strip) - w.offsets[strip];
    end = w.stream + w.stream_end(strip);
    bytes = length < most_ahead ? length : most_ahead;
    jump = next < last ? w.offsets[next] - w.stream_end(strip) : -bytes;
  }
  SC_INLINE void open_tile(const char* at) {
    distance = bytes + (at + bytes < end ? 0 : jump);
    if (head_bytes) fetch(at);
  }
  // Before a vector at `at` is read.
  SC_INLINE void fetch(const char* at) const { __builtin_prefetch(at + distance); }
};

}  // namespace
