// The library of sparsecompile that says whether live tensors are still what was packed. Every call
// of a graph asks for all its weights, so they are looked at where they are, among the call's Python
// arguments. Without Python's headers there is none of this, and Python looks itself. What declares
// at::Tensor takes as long to compile as all of this.
#if __has_include(<Python.h>)
#include <ATen/Parallel.h>
#include <Python.h>
#include <c10/core/TensorImpl.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <vector>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define SC_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

// Of words of 64 bits, each with its place: `fingerprint` in sparsecompile/weights/snapshot.py
// defines it.
// A product of halves, as in NH (Black et al., UMAC, 1999), and the word itself.
constexpr uint64_t golden = 0x9e3779b97f4a7c15;

uint64_t mixed(uint64_t word, int64_t place) {
  const uint64_t x = word + (place + 1) * golden;
  return (x & 0xffffffff) * (x >> 32) + x;
}

// Inlined, since for a line all of it is known.
__attribute__((always_inline)) inline uint64_t mixed_words(const char* data, int64_t first,
                                                           int64_t last) {
  uint64_t sum = 0;
  int64_t i = first;
#if defined(__SSE2__)
  const __m128i step = _mm_set1_epi64x(2 * golden);
  __m128i key = _mm_set_epi64x((first + 2) * golden, (first + 1) * golden);
  __m128i sums = _mm_setzero_si128();
  for (; i + 2 <= last; i += 2) {
    const auto* words = reinterpret_cast<const __m128i*>(data + 8 * i);
    const __m128i x = _mm_add_epi64(_mm_loadu_si128(words), key);
    sums = _mm_add_epi64(sums, _mm_add_epi64(_mm_mul_epu32(x, _mm_srli_epi64(x, 32)), x));
    key = _mm_add_epi64(key, step);
  }
  sum = _mm_cvtsi128_si64(sums) + _mm_cvtsi128_si64(_mm_unpackhi_epi64(sums, sums));
#endif
  for (; i < last; ++i) {
    uint64_t word;
    std::memcpy(&word, data + 8 * i, 8);
    sum += mixed(word, i);
  }
  return sum;
}

uint64_t fingerprint(const char* data, int64_t bytes) {
  const int64_t words = bytes / 8;
  std::atomic<uint64_t> sum{0};
  at::parallel_for(0, words, 1 << 16, [&](int64_t first, int64_t last) {
    sum += mixed_words(data, first, last);
  });
  if (bytes % 8) {
    uint64_t word = 0;
    std::memcpy(&word, data + 8 * words, bytes % 8);
    sum += mixed(word, words);
  }
  return sum;
}

// Where a weight is sampled: `points` cache lines, spread over its rows and columns as a lattice of
// rank 1. A call looks at every `points / lines`-th of them, which is such a lattice, too: with
// eight lines a call no rectangle of a quarter of the weight is without one. Sixteen calls one
// after the other leave out no run of a hundredth of its rows.
constexpr int64_t points = 512, slope = 277, line_bytes = 64;

struct Lines {
  const char* data;
  int64_t bytes, rows, row_bytes;

  // Where a line begins, in words.
  uint32_t place(int64_t point) const {
    const int64_t row = (2 * point + 1) * rows / (2 * points);
    const int64_t column = point * slope % points * row_bytes / points;
    const int64_t line = (row * row_bytes + column) / line_bytes * line_bytes;
    return std::max<int64_t>(0, std::min(line, bytes - line_bytes)) / 8;
  }
  const char* at(uint32_t place) const { return data + int64_t{8} * place; }
  // A few bytes have one line, which is shorter.
  uint32_t digest(uint32_t place) const {
    const uint64_t sum = bytes >= line_bytes ? mixed_words(at(place), 0, line_bytes / 8)
                                             : fingerprint(data, bytes);
    return static_cast<uint32_t>(sum ^ sum >> 32);
  }
};

// How torch's Python tensors begin. Its own header takes longer to compile than all the rest, and
// whether this is still so is asked of a tensor before any snapshot is taken.
struct PythonTensor {
  PyObject_HEAD
  const c10::TensorImpl* tensor;
};
const c10::TensorImpl& tensor_in(PyObject* object) {
  return *reinterpret_cast<const PythonTensor*>(object)->tensor;
}
int64_t version_of(const c10::TensorImpl& tensor) {
  return tensor.version_counter().current_version();
}

// What torch knows of a tensor. Torch swaps tensors only while nobody refers to them, so this refers
// to what is behind: the storage, and the count of writes, which all tensors share that count
// together. Both are held elsewhere, so that no others get their addresses.
struct Stamp {
  PyTypeObject* type;
  const c10::StorageImpl* storage;
  const void* counter;
  const void* data;
  int64_t version;
  uint64_t geometry;
  // Where the tensor was, to have it fetched; what is there now may be anything.
  const PyObject* object;
  const c10::TensorImpl* tensor;

  static const void* counter_of(const c10::TensorImpl& tensor) {
    const c10::VariableVersion& version = tensor.version_counter();
    static_assert(sizeof version == sizeof(void*), "a pointer to what is counted");
    const void* counter;
    std::memcpy(&counter, &version, sizeof counter);
    return counter;
  }
  static uint64_t geometry_of(const c10::TensorImpl& tensor) {
    uint64_t sum = 0;
    int64_t place = 0;
    for (const int64_t size : tensor.sizes()) sum += mixed(size, place++);
    for (const int64_t stride : tensor.strides()) sum += mixed(stride, place++);
    return sum;
  }
  explicit Stamp(PyObject* live)
      : type(Py_TYPE(live)),
        storage(tensor_in(live).storage().unsafeGetStorageImpl()),
        counter(counter_of(tensor_in(live))),
        data(tensor_in(live).data()),
        version(version_of(tensor_in(live))),
        geometry(geometry_of(tensor_in(live))),
        object(live),
        tensor(&tensor_in(live)) {}

  // The same memory, written to by nobody that torch knows of.
  bool matches(PyObject* live) const {
    if (Py_TYPE(live) != type) return false;
    const c10::TensorImpl& found = tensor_in(live);
    return storage == found.storage().unsafeGetStorageImpl() && counter == counter_of(found) &&
           version == version_of(found) && data == found.data() && geometry == geometry_of(found);
  }
  // Inlined: GCC takes a function that does nothing else for one that does nothing.
  __attribute__((always_inline)) void fetch() const {
    __builtin_prefetch(object);
    for (size_t at = 0; at < sizeof *tensor; at += line_bytes)
      __builtin_prefetch(reinterpret_cast<const char*>(tensor) + at);
    __builtin_prefetch(storage);
    __builtin_prefetch(counter);
  }
};

// A tensor at a moment. It keeps no memory of a model alive.
struct Snapshot {
  Stamp stamp;
  c10::weak_intrusive_ptr<c10::StorageImpl> storage;
  c10::VariableVersion counter;
  Lines lines;
  uint64_t print;
  std::array<uint32_t, points> digests;

  Snapshot(PyObject* live, int64_t row)
      : stamp(live),
        storage(tensor_in(live).storage().getWeakStorageImpl()),
        counter(tensor_in(live).version_counter()) {
    const int64_t size = tensor_in(live).itemsize();
    lines.data = static_cast<const char*>(stamp.data);
    lines.bytes = tensor_in(live).numel() * size;
    lines.row_bytes = row * size;
    lines.rows = lines.bytes ? lines.bytes / lines.row_bytes : 0;
    print = fingerprint(lines.data, lines.bytes);
    for (int64_t i = 0; i < points; ++i) digests[i] = lines.digest(lines.place(i));
  }
  bool matches(PyObject* live) const {
    if (!stamp.matches(live)) return false;
    for (int64_t i = 0; i < points; ++i)
      if (digests[i] != lines.digest(lines.place(i))) return false;
    return true;
  }
};
using Shared = std::shared_ptr<const Snapshot>;

// What looks at all weights of a graph before each of its calls. What it reads lies in the order in
// which it is read; the rest is fetched some weights ahead.
class Look {
 public:
  Look(const Shared* const* snapshots, const int64_t* places, int64_t count)
      : places_(places, places + count),
        lines_a_call_(count <= 64 ? 8 : 4),
        turns_(points / lines_a_call_) {
    for (int64_t i = 0; i < count; ++i) {
      snapshots_.push_back(*snapshots[i]);
      stamps_.push_back(snapshots_[i]->stamp);
      lines_.push_back(snapshots_[i]->lines);
    }
    for (int64_t turn = 0; turn < turns_; ++turn)
      for (const Shared& snapshot : snapshots_)
        for (int64_t line = 0; line < lines_a_call_; ++line) {
          const int64_t i = point(turn, line);
          samples_.push_back({snapshot->lines.place(i), snapshot->digests[i]});
        }
  }

  bool is_fresh(PyObject* arguments) {
    const int64_t count = stamps_.size();
    const int64_t turn = turn_.fetch_add(1, std::memory_order_relaxed) % turns_;
    const Sample* samples = &samples_[turn * count * lines_a_call_];
    for (int64_t at = 0; at < count * lines_a_call_; at += line_bytes / sizeof(Sample))
      __builtin_prefetch(samples + at);
    const auto fetch = [&](int64_t i) __attribute__((always_inline)) {
      stamps_[i].fetch();
      for (int64_t line = 0; line < lines_a_call_; ++line)
        __builtin_prefetch(lines_[i].at(samples[i * lines_a_call_ + line].place));
    };
    for (int64_t i = 0; i < std::min(ahead, count); ++i) fetch(i);
    for (int64_t i = 0; i < count; ++i) {
      if (i + ahead < count) fetch(i + ahead);
      // Before its lines are read: it may be gone.
      if (!stamps_[i].matches(PyTuple_GET_ITEM(arguments, places_[i]))) return false;
      for (int64_t line = 0; line < lines_a_call_; ++line) {
        const Sample& sample = samples[i * lines_a_call_ + line];
        if (sample.digest != lines_[i].digest(sample.place)) return false;
      }
    }
    return true;
  }

 private:
  static constexpr int64_t ahead = 16;
  struct Sample {
    uint32_t place, digest;
  };

  // Neighbours among calls are far from each other, and so are lines of one call.
  int64_t point(int64_t turn, int64_t line) const {
    return line * turns_ + turn * (lines_a_call_ == 8 ? 5 : 9) % turns_;
  }

  std::vector<Shared> snapshots_;
  std::vector<Stamp> stamps_;
  std::vector<Lines> lines_;
  std::vector<int64_t> places_;
  std::vector<Sample> samples_;  // by turn, snapshot and line
  int64_t lines_a_call_, turns_;
  std::atomic<int64_t> turn_{0};
};

}  // namespace

// Where the tensor behind a Python tensor is: the same as its `_cdata`.
SC_EXPORT const void* sc_tensor_in(PyObject* object) { return &tensor_in(object); }

// A snapshot of a tensor on the CPU whose memory is its own values and nothing else, in rows of so
// many; null for one that has no version or address.
SC_EXPORT const Shared* sc_take_snapshot(PyObject* tensor, int64_t row) {
  try {
    return new Shared(std::make_shared<Snapshot>(tensor, row));
  } catch (const std::exception&) {
    return nullptr;
  }
}
SC_EXPORT uint64_t sc_fingerprint(const Shared* snapshot) { return (*snapshot)->print; }
SC_EXPORT int sc_is_of(PyObject* tensor, const Shared* snapshot) {
  return (*snapshot)->stamp.matches(tensor);
}
SC_EXPORT int sc_matches(PyObject* tensor, const Shared* snapshot) {
  return (*snapshot)->matches(tensor);
}
SC_EXPORT int sc_is_alive(const Shared* snapshot) { return !(*snapshot)->storage.expired(); }
SC_EXPORT void sc_forget_snapshot(const Shared* snapshot) { delete snapshot; }

// A look at tensors at these places of a tuple.
SC_EXPORT Look* sc_make_look(const Shared* const* snapshots, const int64_t* places, int64_t count) {
  return new Look(snapshots, places, count);
}
SC_EXPORT int sc_is_fresh(PyObject* arguments, Look* look) {
  try {
    return look->is_fresh(arguments);
  } catch (const std::exception&) {
    return 0;
  }
}
SC_EXPORT void sc_forget_look(Look* look) { delete look; }
#endif
