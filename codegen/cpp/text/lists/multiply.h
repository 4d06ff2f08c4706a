// Kept values with their columns, times a few vectors of rows of x.

namespace {

// Four elements, each in all lanes of a vector: by shuffles, since what binds is loads, of x.
template <class T, int... lanes>
SC_INLINE void broadcast(const T* from, Values* to, std::integer_sequence<int, lanes...>) {
  const Values fours = repeat(load_floats<4>(from), std::integer_sequence<int, lanes...>());
  to[0] = shuffle<(lanes / 4 * 4)...>(fours, fours);
  to[1] = shuffle<(lanes / 4 * 4 + 1)...>(fours, fours);
  to[2] = shuffle<(lanes / 4 * 4 + 2)...>(fours, fours);
  to[3] = shuffle<(lanes / 4 * 4 + 3)...>(fours, fours);
}

// Of these it is a load as words and a shift.
template <int... lanes>
SC_INLINE void broadcast(const bfloat16* from, Values* to, std::integer_sequence<int, lanes...>) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const auto words = Vector<uint16_t, 2 * native_floats>{} + load<uint16_t>(from + i);
    to[i] = (Values)((Vector<uint32_t, native_floats>)words << 16);
  }
}

// What a value and an element of x are: numbers.
struct FloatProduct {
  static SC_INLINE Values add(Values sum, Values value, Values x) { return sum + value * x; }
};

// One list times a tile of x [columns][width], added to `sums` [width].
template <int vectors, class Value, class Product = FloatProduct>
SC_INLINE void multiply_list(const uint8_t* columns, const char* values, int64_t count,
                             const float* x, float* sums) {
  constexpr int width = vectors * native_floats;
  constexpr int chains = vectors == 1 ? 4 : vectors < 8 ? 2 : 1;  // sums in flight
  Values total[chains][vectors] = {};
  const auto add = [&](int chain, Values value, uint32_t column) SC_INLINED {
    const float* from = x + column * width;
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v)
      total[chain][v] = Product::add(total[chain][v], value, load<Values>(from + v * native_floats));
  };
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    const uint32_t places = load<uint32_t>(columns + i);
    Values four[4];
    broadcast(reinterpret_cast<const Value*>(values + i * sizeof(Value)), four,
              std::make_integer_sequence<int, native_floats>{});
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) add(c % chains, four[c], places >> 8 * c & 0xff);
  }
  for (; i < count; ++i)
    add(0, Values{} + to_float(load<Value>(values + i * sizeof(Value))), columns[i]);
#pragma GCC unroll 8
  for (int v = 0; v < vectors; ++v) {
#pragma GCC unroll 4
    for (int c = 1; c < chains; ++c) total[0][v] += total[c][v];
    // Block by block: sums of sums are more exact than one long sum.
    float* to = sums + v * native_floats;
    store(to, load<Floats<native_floats>>(to) + total[0][v]);
  }
}

}  // namespace
