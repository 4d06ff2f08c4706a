// What the instructions of AVX-512 compute, lane by lane.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace emulated {

// A register as lanes of one type; `lane(i)` is what an instruction computes for each.
template <class Lane>
struct Lanes {
  static constexpr int count = 64 / sizeof(Lane);
  alignas(64) Lane of[count];

  template <class Register>
  explicit Lanes(Register from) {
    static_assert(sizeof from == 64);
    std::memcpy(of, &from, 64);
  }
  Lane operator[](int i) const { return of[i]; }
};
template <class Register, class Lane, class Compute>
inline Register make(Compute&& lane) {
  constexpr int count = sizeof(Register) / sizeof(Lane);
  Lane lanes[count];
  for (int i = 0; i < count; ++i) lanes[i] = static_cast<Lane>(lane(i));
  Register result;
  std::memcpy(&result, lanes, sizeof result);
  return result;
}
template <class Lane, class Compute>
inline __m512i integers(Compute&& lane) { return make<__m512i, Lane>(lane); }
template <class Compute>
inline __m512 floats(Compute&& lane) { return make<__m512, float>(lane); }

template <class Lane>
inline __m512i add(__m512i a, __m512i b) {
  const Lanes<Lane> x(a), y(b);
  return integers<Lane>([&](int i) { return x[i] + y[i]; });
}
template <class Lane>
inline __m512i subtract(__m512i a, __m512i b) {
  const Lanes<Lane> x(a), y(b);
  return integers<Lane>([&](int i) { return x[i] - y[i]; });
}
template <class Lane>
inline __m512i look_up(__m512i index, __m512i table) {
  const Lanes<Lane> x(index), y(table);
  return integers<Lane>([&](int i) { return y[x[i] % Lanes<Lane>::count]; });
}
template <class Lane>
inline __m512i shift_left(__m512i a, int by) {
  const Lanes<Lane> x(a);
  return integers<Lane>([&](int i) { return x[i] << by; });
}
template <class Lane>
inline __m512i shift_right(__m512i a, int by) {
  const Lanes<Lane> x(a);
  return integers<Lane>([&](int i) { return x[i] >> by; });
}
// Those of the mask get the lanes of `a`, one after the other, the rest those of `other`.
template <class Lane>
inline __m512i expand(__m512i other, uint64_t mask, __m512i a) {
  const Lanes<Lane> x(a), rest(other);
  int next = 0;
  return integers<Lane>([&](int i) { return mask >> i & 1 ? x[next++] : rest[i]; });
}
// The lanes of `a` that are of the mask, one after the other, and zeros.
template <class Lane>
inline __m512i compress(uint64_t mask, __m512i a) {
  const Lanes<Lane> x(a);
  int next = 0;
  return integers<Lane>([&](int) {
    while (next < x.count && !(mask >> next & 1)) ++next;
    return next < x.count ? x[next++] : Lane{0};
  });
}
// Which lanes of two vectors have a bit in common.
inline uint16_t test(__m512i a, __m512i b) {
  const Lanes<uint32_t> x(a), y(b);
  int mask = 0;
  for (int i = 0; i < 16; ++i) mask |= ((x[i] & y[i]) != 0) << i;
  return static_cast<uint16_t>(mask);
}
// Lanes of one width as lanes of another.
template <class To, class From, class Result, class Register>
inline Result convert(Register a) {
  From lanes[sizeof a / sizeof(From)];
  std::memcpy(lanes, &a, sizeof a);
  return make<Result, To>([&](int i) { return lanes[i]; });
}
template <class Lane>
inline __m512i all(Lane value) {
  return integers<Lane>([&](int) { return value; });
}

inline __m256 half_of(__m512 a, int which) {
  __m256 half;
  std::memcpy(&half, reinterpret_cast<const char*>(&a) + 32 * which, 32);
  return half;
}
template <class Result, class Half>
inline Result join(Half low, Half high) {
  Result result;
  std::memcpy(&result, &low, 32);
  std::memcpy(reinterpret_cast<char*>(&result) + 32, &high, 32);
  return result;
}

inline float widen(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}
inline uint16_t narrow(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 64);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline __m512i dot_bytes(__m512i sum, __m512i unsigned_bytes, __m512i signed_bytes) {
  const Lanes<int32_t> s(sum);
  const Lanes<uint8_t> x(unsigned_bytes);
  const Lanes<int8_t> y(signed_bytes);
  return integers<int32_t>([&](int i) {
    int32_t total = s[i];
    for (int j = 4 * i; j < 4 * i + 4; ++j) total += x[j] * y[j];
    return total;
  });
}
template <class Pairs>
inline __m512 dot_pairs(__m512 sum, Pairs a, Pairs b) {
  const Lanes<float> s(sum);
  const Lanes<uint16_t> x(a), y(b);
  return floats([&](int i) {
    const float odd = s[i] + widen(x[2 * i + 1]) * widen(y[2 * i + 1]);
    return odd + widen(x[2 * i]) * widen(y[2 * i]);
  });
}
inline __m512i choose_bits(__m512i a, __m512i b, __m512i c, int table) {
  const Lanes<uint32_t> x(a), y(b), z(c);
  return integers<uint32_t>([&](int i) {
    uint32_t result = 0;
    for (int bit = 0; bit < 32; ++bit) {
      const int row = (x[i] >> bit & 1) << 2 | (y[i] >> bit & 1) << 1 | (z[i] >> bit & 1);
      result |= static_cast<uint32_t>(table >> row & 1) << bit;
    }
    return result;
  });
}
template <class Index>
inline __m512 gather(const float* from, Index index) {
  const Lanes<int32_t> places(index);
  return floats([&](int i) { return from[places[i]]; });
}

inline __m512i blend_words(uint32_t mask, __m512i a, __m512i b) {
  const Lanes<uint16_t> x(a), y(b);
  return integers<uint16_t>([&](int i) { return mask >> i & 1 ? y[i] : x[i]; });
}
// In each quarter of a register the lanes that two bits each name.
inline __m512i shuffle_quarters(__m512i a, int places) {
  const Lanes<uint32_t> x(a);
  return integers<uint32_t>([&](int i) { return x[i / 4 * 4 + (places >> i % 4 * 2 & 3)]; });
}
// The same, each lane by the lowest two bits of an index of its own.
inline __m512 choose_of_quarters(__m512 a, __m512i index) {
  const Lanes<float> x(a);
  const Lanes<uint32_t> places(index);
  return floats([&](int i) { return x[i / 4 * 4 + (places[i] & 3)]; });
}
inline __m512 repeat_quarter(__m128 a) {
  return floats([&](int i) { return a[i % 4]; });
}
inline __m256bh narrow(__m512 a) {
  const Lanes<float> x(a);
  return make<__m256bh, uint16_t>([&](int i) { return narrow(x[i]); });
}
inline __m512bh narrow_two(__m512 high, __m512 low) {
  const Lanes<float> x(low), y(high);
  return make<__m512bh, uint16_t>([&](int i) { return narrow(i < 16 ? x[i] : y[i - 16]); });
}
inline __m512 scale_by_power(__m512 a, __m512 power) {
  const Lanes<float> x(a), y(power);
  return floats([&](int i) { return __builtin_ldexpf(x[i], static_cast<int>(y[i])); });
}
inline int32_t sum(__m512i a) {
  uint32_t total = 0;
  for (const uint32_t lane : Lanes<uint32_t>(a).of) total += lane;
  return static_cast<int32_t>(total);
}
inline __m512 broadcast(float value) {
  return floats([&](int) { return value; });
}

}  // namespace emulated
