// Of four activations six pairs can be made. For some columns all of them are laid side by side once; a
// row of W takes one product for every four columns, with those that the kind of its kept pair names.
//   x        [tile of rows][columns / 2][rows of the tile] pairs, of 16 bits each
//   choices  [group of four columns][6][rows of a tile]: the pairs that can be made of x

namespace {

constexpr int64_t kind_bytes = widest * lanes * sizeof(Word);
constexpr int64_t group_bytes = pair_kinds * kind_bytes;
constexpr int64_t tile_choices_bytes = tile_groups * group_bytes;

// The pairs that can be made of four activations: x [groups][2][width] -> [groups][6], in `memory`.
template <int vectors_of_x>
SC_SHARED const char* lay_out_choices(const Word* x, int64_t groups, char* memory) {
  constexpr int64_t width = vectors_of_x * lanes;
  char* choices = memory;
  for (int64_t g = 0; g < groups; ++g, x += 2 * width, choices += group_bytes) {
#pragma GCC unroll 8
    for (int v = 0; v < vectors_of_x; ++v) {
      const Words ab = load<Words>(x + v * lanes), cd = load<Words>(x + width + v * lanes);
      const Words b = ab >> 16, c = cd << 16;
      char* out = choices + v * sizeof(Words);
      store(out, ab);
      store(out + kind_bytes, with_upper_words((Register)ab, (Register)c));
      store(out + 2 * kind_bytes, with_upper_words((Register)ab, (Register)cd));
      store(out + 3 * kind_bytes, b | c);
      store(out + 4 * kind_bytes, with_upper_words((Register)b, (Register)cd));
      store(out + 5 * kind_bytes, cd);
    }
  }
  return memory;
}

}  // namespace
