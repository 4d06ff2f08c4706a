// What the loops over many rows of x multiply: a chunk of expanded tiles of W.

namespace {

constexpr int64_t x_rows = 16;
// Columns that are multiplied together: a tile of the layout, two of them where 64 fit a vector.
constexpr int64_t pack_columns = multiplies_integers ? 64 : tile_columns;
constexpr int64_t pack_tiles = pack_columns / tile_columns;
constexpr int64_t x_tile = x_rows * pack_columns;
constexpr int64_t w_tile = strip_rows * pack_columns;
constexpr int64_t sums_tile = x_rows * strip_rows;
constexpr int64_t chunk_tiles = batch_columns / tile_columns;

// Whether tiles stand in the stream as they are multiplied.
constexpr bool stream_is_expanded = !masked && !has_scales && value_bits == 8 * sizeof(Operand);

SC_INLINE void expand_tile(Reader& reader, Operand* out) {
#pragma GCC unroll 32
  for (int v = 0; v < vectors; ++v) {
    store_expanded(reader, reader.next(v), out + v * codes_per_vector);
  }
}

// Sums of integers of so many columns fit into 32 bits; those of more become floats part by part.
constexpr int64_t part_columns = multiplies_integers ? int64_t{1} << 16 : int64_t{1} << 60;
inline int64_t parts_of(const Strips& w) { return w.k > 0 ? ceil_div(w.k, part_columns) : 1; }

// Packs of tiles in a row of W or x.
inline int64_t packs_of(const Strips& w) { return ceil_div(w.tiles, pack_tiles); }

// Beside a chunk that tile registers multiply the next one is expanded.
constexpr int chunks_at_once = uses_amx ? 2 : 1;

// Elements of the scratch for one strip. Where tiles are missing from the last pack, x is zero.
inline int64_t scratch_size(const Strips& w) {
  const int64_t tiles = w.tiles < chunk_tiles ? w.tiles : chunk_tiles;
  return ceil_div(tiles, pack_tiles) * w_tile;
}

// Packs of W that are multiplied together: where each strip's lie and which columns they cover.
struct Chunk {
  int64_t strip;                        // the first of them
  int strips;
  const Operand* packs[group_strips];   // of each strip, expanded, one after the other
  const int32_t* places;                // only if `skips`: the tile of x for each
  int64_t first, count;                 // elsewhere packs [first, first + count)
  int64_t part;                         // of its strips' columns
  bool begins, ends;                    // whether it has the first and the last columns of its part

  SC_INLINE int64_t place(int64_t t) const { return skips ? places[t] : first + t; }
};

// Goes through a thread's strips chunk by chunk. While one chunk is multiplied, which leaves most of
// a core idle where tile registers do it, the next one is expanded.
class Expander {
 public:
  // Strips [part.begin, part.end); `scratch` has room for `chunks_at_once`.
  Expander(const Strips& w, Range part, Operand* scratch)
      : w(w), end(part.end), strip(part.begin), scratch(scratch) {
    if (strip < end) open_group();
  }
  bool has_next() const { return strip < end; }

  // The next chunk, expanded to its end.
  Chunk take() {
    while (done < todo) expand();
    Chunk chunk{strip, strips, {}, skips ? w.tile_places + w.first_tiles[strip] + tile : nullptr,
                tile / pack_tiles, ceil_div(count, pack_tiles), tile / part_tiles,
                tile % part_tiles == 0, tile + count == end_of_part()};
    for (int s = 0; s < strips; ++s) chunk.packs[s] = packs_of_strip(s);
    tile += count;
    side = (side + 1) % chunks_at_once;
    if (tile < tiles) {
      open_chunk();
    } else if ((strip += strips) < end) {
      open_group();
    } else {
      done = todo = 0;
    }
    return chunk;
  }
  // Expand what is next in so many steps, at even distances.
  void spread(int64_t over) {
    steps = over;
    credit = 0;
  }
  SC_INLINE void step() {
    for (credit += todo; credit >= steps; credit -= steps)
      if (done < todo) expand();
  }

 private:
  const Strips& w;
  const int64_t end;
  int64_t strip;
  Operand* const scratch;
  int strips = 0;
  int64_t tiles = 0, tile = 0, count = 0;  // of each strip; the chunk's first; how many it has
  int64_t done = 0, todo = 0;              // tiles of all strips of the chunk
  int64_t steps = 1, credit = 0;
  int side = 0;
  Reader readers[group_strips];
  const char* begins[group_strips];

  static constexpr int64_t part_tiles = part_columns / tile_columns;

  int64_t end_of_part() const {
    const int64_t end = (tile / part_tiles + 1) * part_tiles;
    return end < tiles ? end : tiles;
  }
  void open_group() {
    strips = 1;
    while (strips < group_strips && strip + strips < end && w.has_same_tiles(strip, strip + strips))
      ++strips;
    for (int s = 0; s < strips; ++s) readers[s].open_strip(w, strip + s, strip + s + strips, end);
    tiles = w.present_tiles(strip);
    tile = 0;
    open_chunk();
  }
  void open_chunk() {
    // Chunks of equal size rather than a small last one.
    const int64_t rest = end_of_part() - tile, chunks = ceil_div(rest, chunk_tiles);
    const int64_t share = chunks ? ceil_div(ceil_div(rest, chunks), pack_tiles) * pack_tiles : 0;
    count = share < rest ? share : rest;
    done = 0;
    todo = count * strips;
    for (int s = 0; s < strips; ++s) begins[s] = readers[s].at;
  }
  Operand* packs_of_strip(int s) {
    if constexpr (stream_is_expanded)
      return reinterpret_cast<Operand*>(const_cast<char*>(begins[s]));
    return scratch + (side * group_strips + s) * scratch_size(w);
  }
  // The next tile, strip by strip: memory answers several streams faster than one.
  SC_INLINE void expand() {
    const int64_t s = done % strips, i = done / strips;
    // A copy: for all a compiler knows, what is stored in the scratch may change the reader.
    Reader reader = readers[s];
    if constexpr (stream_is_expanded) {
      for (int64_t i = 0; i < tile_bytes; i += 64) __builtin_prefetch(reader.at + i);
      reader.at += tile_bytes;
    } else {
      reader.open_tile(w, strip + s, w.place(strip + s, tile + i));
      expand_tile(reader, packs_of_strip(s) + i * tile_columns * strip_rows);
    }
    readers[s] = reader;
    ++done;
  }
};

}  // namespace
