// Layout `strips`: rows of W in the lanes of a vector, columns along one stream.
//
//   strip   `strip_rows` rows of W; its stream is what one thread reads from left to right
//   tile    a strip x `tile_columns` columns, in `vectors` vectors
//   vector  a lane for each row x `depth` columns: value [lane][column], lane by lane
//
// Where `masked`, a tile is the masks of its vectors (bit lane * depth + column), then the kept
// values of each vector, close together. Where `paired`, at most two of every four columns are kept:
// a tile is the kinds of each lane's pairs, four bits a group of columns, then both values of each
// group, as if there were half as many columns. Elsewhere all of a tile's values are there. Where
// `skips`, tiles without a kept value are missing and `tile_places` lists the places of the others.
// A value is stored as its code of `value_bits` bits; `cut` is the code of zero. Codes of four bits
// are two a byte, the first in the lower half; those of a vector begin at a whole byte. Where all of
// them are there, the lower halves are one vector and the upper halves the next; of two bits, four
// vectors share bytes so. Where values have scales, `scales` holds those of a strip's lanes for each
// group of columns; `extra` is what else values are decoded with.

namespace {

constexpr int stored_columns = paired ? tile_columns / 2 : tile_columns;
constexpr int vectors = stored_columns / depth;
constexpr int codes_per_vector = strip_rows * depth;
constexpr int64_t stream_slack = 128;  // a vector may be loaded whole where few values are left

template <int bits>
using Unsigned = std::conditional_t<
    bits == 8, uint8_t,
    std::conditional_t<bits == 16, uint16_t, std::conditional_t<bits == 32, uint32_t, uint64_t>>>;
using Code = Unsigned<value_bits < 8 ? 8 : value_bits>;
using Mask = Unsigned<codes_per_vector>;
using Words = Vector<uint32_t, strip_rows>;
// What stands before a tile's values.
constexpr int64_t head_bytes =
    masked ? vectors * sizeof(Mask) : paired ? strip_rows * sizeof(uint32_t) : 0;

// Bytes that this many codes of a vector take in the stream.
SC_INLINE constexpr int64_t bytes_of(int64_t codes) { return (codes * value_bits + 7) / 8; }
constexpr int64_t vector_bytes = bytes_of(codes_per_vector);
// Of a tile whose values are all there.
constexpr int64_t tile_bytes = head_bytes + vectors * vector_bytes;
// Vectors that share bytes: the codes of the first are the lowest bits.
constexpr int vectors_of_bytes = masked || value_bits >= 8 ? 1 : 8 / value_bits;

// The six pairs that can be kept of four columns, by their kind.
constexpr int group_columns_of_pair = 4, pair_kinds = 6;
constexpr int first_of_pair[pair_kinds] = {0, 0, 0, 1, 1, 2};
constexpr int second_of_pair[pair_kinds] = {1, 2, 3, 2, 3, 3};
// Where a lane's kind of a tile's group is, in four bits. Of two groups that share a vector of four
// columns each has a half.
SC_INLINE constexpr int kind_shift(int group) {
  return depth == 4 ? group / 2 * 4 + group % 2 * 16 : group * 4;
}

// Columns that share a scale: all of a row where `group_columns` is 0.
constexpr int64_t group_step = group_columns > 0 ? group_columns : int64_t{1} << 40;

// Groups of columns of a row that have a scale each; none where values have no scales.
SC_INLINE int64_t scale_groups(int64_t k) {
  if (!has_scales) return 0;
  return group_columns > 0 ? ceil_div(k, group_step) : 1;
}

struct Strips {
  int64_t n, k;
  int64_t strips;  // how many
  int64_t tiles;   // of a strip, missing ones included
  const int64_t* offsets;        // [strips]: where a strip's stream begins
  const int32_t* first_tiles;    // [strips + 1]: place of a strip's first tile in tile_places
  const int32_t* tile_places;    // which tile of its strip each present tile is; only if `skips`
  const Scale* scales;           // [strips][groups][strip_rows]; only if there are scales
  const char* extra;             // what else there is, as the kind of values says
  const char* stream;
  int64_t stream_bytes;

  explicit Strips(const void* layout) {
    const SCLayoutHeader& header = header_of(layout);
    const char* bytes = static_cast<const char*>(layout);
    n = header.n;
    k = header.k;
    strips = ceil_div(n, strip_rows);
    tiles = ceil_div(k, tile_columns);
    offsets = reinterpret_cast<const int64_t*>(bytes + header.offsets[0]);
    first_tiles = reinterpret_cast<const int32_t*>(bytes + header.offsets[1]);
    tile_places = reinterpret_cast<const int32_t*>(bytes + header.offsets[2]);
    scales = reinterpret_cast<const Scale*>(bytes + header.offsets[3]);
    stream = bytes + header.offsets[4];
    extra = bytes + header.offsets[5];
    stream_bytes = header.total_bytes - header.offsets[4];
  }

  int64_t groups() const { return scale_groups(k); }
  const Scale* strip_scales(int64_t strip) const {
    return scales + strip * groups() * strip_rows;
  }

  // Where a strip's stream ends: the last one's with what is read beyond it.
  int64_t stream_end(int64_t strip) const {
    return strip + 1 < strips ? offsets[strip + 1] : stream_bytes;
  }
  int64_t present_tiles(int64_t strip) const {
    return skips ? first_tiles[strip + 1] - first_tiles[strip] : tiles;
  }
  bool has_same_tiles(int64_t strip, int64_t other) const {
    if (!skips) return true;
    const int64_t count = present_tiles(strip);
    return count == present_tiles(other) &&
           !std::memcmp(tile_places + first_tiles[strip], tile_places + first_tiles[other],
                        sizeof(int32_t) * count);
  }
  // Which tile of the strip the t-th present one is.
  int64_t place(int64_t strip, int64_t t) const {
    return skips ? tile_places[first_tiles[strip] + t] : t;
  }
};

}  // namespace
