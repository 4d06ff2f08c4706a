// Calls every function of a generated source under the sanitizers. It follows the source and these macros:
//   SC_ELEMENT     unsigned integer of an element's size
//   SC_INFINITY    infinity's bits; more than that without the sign is a NaN
//   SC_INPUTS      bits of the numbers that x, bias and operands are made of
//   SC_FUNCTIONS   {function, last m that it serves, or 0 for any}, ...
//   SC_PREPACKS    whether the source makes its own layout
//   SC_OPERANDS    how many tensors the epilogue reads
// Arguments are files with layouts as Template.prepack makes them.
#include "sanitized.h"

namespace driver {

// Numbers that are not aligned to more than their own size.
struct Numbers {
  const int64_t count;
  SC_ELEMENT* const memory;

  explicit Numbers(int64_t count)
      : count(count), memory(static_cast<SC_ELEMENT*>(std::malloc(count * sizeof(SC_ELEMENT)))) {
    const SC_ELEMENT inputs[] = {SC_INPUTS};
    static uint32_t state = 1;
    for (int64_t i = 0; i < count; ++i) {
      state = state * 1664525 + 1013904223;
      memory[i] = inputs[(state >> 16) % (sizeof inputs / sizeof *inputs)];
    }
  }
  ~Numbers() { std::free(memory); }
  Numbers(const Numbers&) = delete;
  Numbers& operator=(const Numbers&) = delete;

  void forget() {
    if (count) std::memset(memory, 0xff, count * sizeof(SC_ELEMENT));
  }
  void check(const char* what, int64_t m) const {
    constexpr SC_ELEMENT magnitude = static_cast<SC_ELEMENT>(~SC_ELEMENT{}) >> 1;
    for (int64_t i = 0; i < count; ++i) {
      if ((memory[i] & magnitude) <= SC_INFINITY) continue;
      std::fprintf(stderr, "element %ld of %s is NaN for m = %ld\n", static_cast<long>(i), what,
                   static_cast<long>(m));
      std::exit(1);
    }
  }
};

struct Function {
  SCLinear run;
  int64_t largest_m;
};
const Function functions[] = {SC_FUNCTIONS};

void call(const void* layout, const Function& function, int64_t m, int64_t threads) {
  const auto& header = *static_cast<const SCLayoutHeader*>(layout);
  const Numbers x(m * header.k), bias(header.n);
  const Numbers first(m * header.n), second(m * header.n);
  Numbers y(m * header.n);
  const Buffer workspace(sc_workspace(layout, m, threads));
  SCLinearArguments a{};
  a.x = x.memory;
  a.weight = layout;
  if (m % 2) a.bias = bias.memory;
  if (SC_OPERANDS > 0) a.operand0 = first.memory;
  if (SC_OPERANDS > 1) a.operand1 = second.memory;
  a.y = y.memory;
  a.workspace = workspace.memory;
  a.m = m;
  a.threads = threads;
  y.forget();
  function.run(&a);
  y.check("y", m);
  a.workspace = nullptr;
  sc_finish(&a);
  y.check("the finished y", m);
}

void check(const void* layout, int64_t threads) {
  const auto& header = *static_cast<const SCLayoutHeader*>(layout);
  Numbers dense(header.n * header.k);
  dense.forget();
  sc_unpack(layout, 0, header.n, 0, dense.memory, threads);
  dense.check("the dense weight", 0);
  const int64_t first = header.n / 3, rows = (header.n - first) / 2;
  Numbers part(rows * header.k);
  part.forget();
  sc_unpack(layout, first, rows, 0, part.memory, threads);
  part.check("rows of the dense weight", 0);
  if (header.n == 0) return;
  for (const Function& function : functions)
    for (const int64_t m : {1, 2, 3, 5, 8, 9, 17, 33, 40, 70})
      if (!function.largest_m || m <= function.largest_m) call(layout, function, m, threads);
}

void check_canonical(const std::vector<char>& bytes, int64_t threads) {
  const Buffer given(bytes);
#if SC_PREPACKS
  const auto& header = *static_cast<const SCLayoutHeader*>(given.memory);
  constexpr int64_t least_strip_rows = 8;  // LEAST_STRIP_ROWS of built.py
  const int64_t strips = (header.n + least_strip_rows - 1) / least_strip_rows;
  const Buffer sizes(2 * sizeof(int64_t) * strips);
  int64_t* counts = static_cast<int64_t*>(sizes.memory);
  const int64_t total = sc_prepack_size(given.memory, counts, threads);
  const Buffer layout(total);
  sc_prepack(given.memory, counts, layout.memory, total, header.layout, threads);
  check(layout.memory, threads);
#else
  check(given.memory, threads);
#endif
}

}  // namespace driver

int main(int count, char** files) {
  for (int i = 1; i < count; ++i) {
    const std::vector<char> bytes = driver::bytes_of(files[i]);
    for (const int64_t threads : {1, 3}) driver::check_canonical(bytes, threads);
  }
}
