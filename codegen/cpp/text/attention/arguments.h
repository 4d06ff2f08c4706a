// What the native library hands to a kernel of attention. Both sides include this text.
#include <cstdint>

#define SC_EXPORT extern "C" __attribute__((visibility("default")))

constexpr int64_t SC_TILE = 64;         // queries, and keys, of a tile
constexpr int64_t SC_FEW_QUERIES = 16;  // up to so many queries there are words, no tiles
constexpr int32_t SC_FULL = -1;         // kind of a tile in which every place counts
constexpr int32_t SC_BIASED = -2;       // kind of a tile in which the bias says which places count

// Which keys are attended to: sparsecompile/masks/block_mask.py defines it. Offsets are in bytes
// from the header.
struct SCBlockMask {
  int64_t form;         // 1 tiles, 2 words
  int64_t batch;        // 1 where all batch entries have one mask
  int64_t heads;        // 1 where all heads have one mask; else those of q
  int64_t q, kv;        // how many queries and keys
  int64_t total_bytes;  // header and all
  int64_t kept;         // how many tiles are kept
  int64_t partial;      // how many of these have bits
  int64_t starts;       // int32 [batch * heads * rows of tiles + 1]: places in tiles and kinds
  int64_t tiles;        // int32 [kept]: column of tiles, rising in each row
  int64_t kinds;        // int32 [kept]: SC_FULL, SC_BIASED, or the row of bits
  int64_t bits;         // uint64 [partial, 64]: of every key, a bit for each query of the tile;
                        // words: uint64 [batch, heads, q, ceil(kv / 64)]: a bit for each key
  int64_t is_biased;    // whether tiles are SC_BIASED; words: whether the bias is to be added
  int64_t unused[3];
};
static_assert(sizeof(SCBlockMask) == 128, "HEADER_BYTES in sparsecompile/masks/block_mask.py");

// Where the rows of a tensor [batch, heads, length, width] begin: strides in elements. A row is
// contiguous.
struct SCRows {
  const void* data;
  int64_t batch, head, row;
  int64_t dtype;  // 0 float32, 1 bfloat16, 2 float16; 3 int8
};

// One call: out = softmax(softcap(q @ k.T * scale) + bias, where the mask allows) @ v, rows without
// an allowed key are zeros. Query head h reads the key head h / (heads / kv_heads).
struct SCAttentionArguments {
  SCRows q, k, v, out;      // [batch, heads, q, d], [batch, kv_heads, kv, d], [.., kv, dv], [.., q, dv]
  const SCBlockMask* mask;  // or null: every query attends to every key
  SCRows bias;              // [batch, heads, q, kv]; data is null where there is none
  SCRows k_scale, v_scale;  // [batch, kv_heads, kv, 1]: of rows of int8 in k and v
  int64_t batch, heads, kv_heads, q_length, kv_length;
  float scale;
  float softcap;    // cap * tanh(score / cap), read where the kernel was made for one
  void* workspace;  // as many bytes as sc_attention_workspace asked for, 64-byte aligned
  int64_t threads;  // how many may be used, at least 1
};

using SCAttention = void (*)(const SCAttentionArguments*);
// Bytes of workspace that a call wants; reads all of the arguments but workspace.
using SCAttentionWorkspace = int64_t (*)(const SCAttentionArguments*);
