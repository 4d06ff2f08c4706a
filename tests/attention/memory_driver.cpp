// Calls both functions of a source of attention under the sanitizers. It follows the source; arguments are
// files of masks as BlockMask.layout gives them, each for as many queries and keys as it says.
#include <cmath>

#include "sanitized.h"

namespace driver {

// [heads, length, columns], not aligned to more than an element.
template <class T = Element>
struct Rows {
  T* memory;
  const int64_t length, columns, count;
  Rows(int64_t heads, int64_t length, int64_t columns)
      : length(length), columns(columns), count(heads * length * columns) {
    memory = static_cast<T*>(std::malloc(count * sizeof(T)));
    for (int64_t i = 0; i < count; ++i) {
      if constexpr (std::is_same_v<T, int8_t>)
        memory[i] = static_cast<int8_t>(i * 7919 % 13 - 6);
      else
        memory[i] = from_float<T>((i * 7919 % 13 - 6) / 4.0f);
    }
  }
  ~Rows() { std::free(memory); }
  Rows(const Rows&) = delete;
  Rows& operator=(const Rows&) = delete;
  SCRows rows() const {
    const int64_t dtype = std::is_same_v<T, float> ? 0 : std::is_same_v<T, bfloat16> ? 1 : 2;
    return {memory, 0, length * columns, columns, dtype};
  }
};

void call(SCAttention function, const SCBlockMask* mask, int64_t q, int64_t kv, bool biased,
          int64_t threads) {
  const int64_t kv_heads = 2, heads = kv_heads * groups;
  const Rows<> queries(heads, q, head_dim), out(heads, q, value_dim), bias(1, q, kv);
  const Rows<Stored> keys(kv_heads, kv, head_dim), values(kv_heads, kv, value_dim);
  const Rows<> scales(kv_heads, kv, 1);
  SCAttentionArguments a{};
  a.q = queries.rows();
  a.k = keys.rows();
  a.v = values.rows();
  a.out = out.rows();
  a.mask = mask;
  a.k_scale = a.v_scale = scales.rows();
  if (biased) a.bias = bias.rows();
  a.bias.head = 0;  // One of all heads.
  a.batch = 1;
  a.heads = heads;
  a.kv_heads = kv_heads;
  a.q_length = q;
  a.kv_length = kv;
  a.scale = 0.25f;
  a.softcap = 2.0f;
  a.threads = threads;
  const Buffer workspace(sc_attention_workspace(&a));
  a.workspace = workspace.memory;
  function(&a);
  for (int64_t i = 0; i < out.count; ++i) {
    if (std::isfinite(to_float(out.memory[i]))) continue;
    std::fprintf(stderr, "element %ld is not finite, q %ld, kv %ld\n", static_cast<long>(i),
                 static_cast<long>(q), static_cast<long>(kv));
    std::exit(1);
  }
}

}  // namespace driver

int main(int count, char** files) {
  for (int i = 1; i < count; ++i) {
    const driver::Buffer file(driver::bytes_of(files[i]));
    const auto* mask = static_cast<const SCBlockMask*>(file.memory);
    for (const int64_t threads : {1, 3}) {
      for (const bool biased : {false, true}) {
        for (const SCBlockMask* each : {mask, static_cast<const SCBlockMask*>(nullptr)}) {
          driver::call(sc_attention, each, mask->q, mask->kv, biased, threads);
          if (mask->q <= SC_FEW_QUERIES)
            driver::call(sc_attention_few, each, mask->q, mask->kv, biased, threads);
        }
      }
    }
  }
}
