// What the native library hands to a kernel. Both sides include this text, so they agree.
#include <cstdint>

#define SC_EXPORT extern "C" __attribute__((visibility("default")))

// The first 128 bytes of a layout; the weight's tensors follow, in the order of its Packed.
struct SCLayoutHeader {
  int64_t layout;       // which layout this is: digest of template, format and dtype
  int64_t n, k;         // shape of the dense weight
  int64_t slots;        // stored values, padding included
  int64_t total_bytes;  // header and tensors
  int64_t tensors;      // how many tensors
  int64_t offsets[10];  // where each begins, in bytes from the header, multiples of 64
};
static_assert(sizeof(SCLayoutHeader) == 128, "HEADER_BYTES in sparsecompile/ops.py");

// One call: y = epilogue(x @ W.T + bias). All pointers are contiguous and row-major.
struct SCLinearArguments {
  const void* x;         // [m, k]
  const void* weight;    // layout
  const void* bias;      // [n], or null
  const void* operand0;  // [m, n], or null where the epilogue reads none
  const void* operand1;  // [m, n], or null where the epilogue reads fewer than two
  void* y;               // [m, n]
  void* workspace;       // as many bytes as sc_workspace asked for, 64-byte aligned
  int64_t m;             // at least 1
  int64_t threads;       // how many may be used, at least 1
  int64_t in_region;     // whether all threads of a region call, each for its part
  int64_t thread;        // which of them calls
};

using SCLinear = void (*)(const SCLinearArguments*);
// Bytes of workspace that any function of a kernel wants.
using SCWorkspace = int64_t (*)(const void* weight, int64_t m, int64_t threads);
// Rows [first, first + rows) of the dense weight as `dense` [rows, k], in the dtype of x, or in
// float32 where they are wanted as exact as they are multiplied.
using SCUnpack = void (*)(const void* weight, int64_t first, int64_t rows, int64_t in_float32,
                          void* dense, int64_t threads);

// What generated code and the native library share of a region; sparsecompile/kernels/region.py says
// what that is. Sources are rows of x, values in between, and vectors that all rows share.
struct SCStage {
  SCLinear linear;
  SCLinearArguments arguments;    // without what the sources below are
  int64_t x, operand0, operand1, y;  // sources; -1 where the epilogue reads none
};
struct SCRegion {
  const SCStage* stages;
  int64_t count;
  char* const* sources;   // where the first row of each is: the first thread's own, where each has one
  const int64_t* steps;   // bytes from a thread's own to the next one's; 0 where all share it
  char* workspace;        // the first thread's
  int64_t workspace_step;
  int64_t m, threads;
};
using SCRunRegion = void (*)(const SCRegion*);
// The rows that a stage reads, computed by the first thread alone.
using SCRunRows = void (*)(const SCRegion*, int64_t stage);
