// Few queries: no tiles. Every kept row of k and v is read once for all the queries of a group of heads.
// Kept words of 64 keys are cut evenly between threads; of a group that is cut each has a state.

namespace {

// Keys of a word that any row of a group attends to: a bit for each.
SC_INLINE uint64_t kept_word(const SCAttentionArguments& a, const Group& group, int64_t word) {
  if (!a.mask) {
    const int64_t keys = a.kv_length - word * SC_TILE;
    return keys < SC_TILE ? (uint64_t{1} << keys) - 1 : all_bits;
  }
  uint64_t any = 0;
  const int64_t rows = a.mask->heads == 1 ? a.q_length : groups * a.q_length;
  for (int64_t row = 0; row < rows; ++row) any |= words_of(a, group, row)[word];
  return any;
}

SC_INLINE int64_t rows_of_group(const SCAttentionArguments& a) { return groups * a.q_length; }
SC_INLINE int64_t groups_of(const SCAttentionArguments& a) { return a.batch * a.kv_heads; }
SC_INLINE Group group_at(const SCAttentionArguments& a, int64_t i) {
  return {i / a.kv_heads, i % a.kv_heads};
}

// The workspace: how many words of each group are kept, then for each thread what it works with, and
// states: of the group that it begins with, of the last one, and of those between.
struct FewMemory {
  const SCAttentionArguments& a;
  const int64_t rows = rows_of_group(a);

  int64_t of_counts() const { return ceil_div(groups_of(a) * sizeof(int64_t), 64) * 64; }
  int64_t of_queries() const { return rows * few_key_steps * sizeof(Terms); }
  int64_t of_scores() const { return rows * block_keys * sizeof(float); }
  int64_t of_thread() const {
    return ceil_div(of_queries(), 64) * 64 + of_scores() + 3 * State::bytes(rows);
  }
  int64_t bytes(int64_t threads) const { return of_counts() + threads * of_thread(); }

  char* at(int64_t thread) const {
    return static_cast<char*>(a.workspace) + of_counts() + thread * of_thread();
  }
  int64_t* counts() const { return static_cast<int64_t*>(a.workspace); }
  Few few(int64_t thread) const {
    return {a, rows, reinterpret_cast<Terms*>(at(thread) + of_scores()),
            reinterpret_cast<float*>(at(thread))};
  }
  State state(int64_t thread, int64_t which) const {
    return {at(thread + 1) - (3 - which) * State::bytes(rows), rows};
  }
};

// Kept words [part.begin, part.end) of a group.
inline void attend_to_words(const Few& few, const Group& group, Range part, const State& state) {
  const SCAttentionArguments& a = few.a;
  stage_rows(a, group, few.rows, few.queries);
  Block block;
  int64_t kept = 0;
  for (int64_t word = 0; kept < part.end; ++word) {
    uint64_t bits = kept_word(a, group, word);
    if (!bits || kept++ < part.begin) continue;
    if (bits == all_bits && block.count == 0) {
      for (int64_t first = 0; first < SC_TILE; first += block_keys) {
        for (int64_t i = 0; i < block_keys; ++i) block.keys[i] = word * SC_TILE + first + i;
        block.count = block_keys;
        attend_to_block(few, group, block, state);
      }
      block.count = 0;
      continue;
    }
    for (; bits; bits &= bits - 1) {
      block.keys[block.count++] = word * SC_TILE + __builtin_ctzll(bits);
      if (block.count < block_keys) continue;
      attend_to_block(few, group, block, state);
      block.count = 0;
    }
  }
  if (block.count) attend_to_block(few, group, block, state);
}

// A thread's part of all kept words: whole groups are finished, of those that are cut states stay.
inline void attend_to_part(const FewMemory& memory, int64_t thread, Range part) {
  const SCAttentionArguments& a = memory.a;
  const Few few = memory.few(thread);
  *memory.state(thread, 0).group = *memory.state(thread, 1).group = -1;
  int64_t cut = 0, before = 0;
  for (int64_t i = 0; i < groups_of(a) && before < part.end; before += memory.counts()[i++]) {
    const int64_t count = memory.counts()[i];
    const int64_t begin = part.begin > before ? part.begin - before : 0;
    const int64_t end = part.end - before < count ? part.end - before : count;
    if (begin >= end) continue;
    const bool is_whole = begin == 0 && end == count;
    const State state = memory.state(thread, is_whole ? 2 : cut++);
    state.clear(i, few.rows);
    attend_to_words(few, group_at(a, i), {begin, end}, state);
    if (is_whole) finish_group(a, group_at(a, i), few.rows, state);
  }
}

// States of one group follow each other.
inline void merge_cut_groups(const FewMemory& memory, int64_t threads) {
  for (int64_t i = 0; i < 2 * threads; ++i) {
    const State state = memory.state(i / 2, i % 2);
    const int64_t group = *state.group;
    if (group < 0) continue;
    for (int64_t j = i + 1; j < 2 * threads; ++j) {
      const State other = memory.state(j / 2, j % 2);
      if (*other.group != group) continue;
      merge(state, other, memory.rows);
      *other.group = -1;
    }
    finish_group(memory.a, group_at(memory.a, group), memory.rows, state);
  }
}

}  // namespace

SC_EXPORT void sc_attention_few(const SCAttentionArguments* arguments) {
  const SCAttentionArguments& a = *arguments;
  const FewMemory memory{a};
  const int64_t words = ceil_div(a.kv_length, SC_TILE);
  int64_t all = 0;
  for (int64_t i = 0; i < groups_of(a); ++i) {
    int64_t& count = memory.counts()[i];
    const Group group = group_at(a, i);
    count = 0;
    for (int64_t word = 0; word < words; ++word) count += kept_word(a, group, word) != 0;
    all += count;
    if (count) continue;
    const State state = memory.state(0, 2);
    state.clear(i, memory.rows);
    finish_group(a, group, memory.rows, state);
  }
  const int64_t work = all * SC_TILE * memory.rows * (head_dim + value_dim);
  int64_t threads = 1 + work / region_work;
  if (threads > a.threads) threads = a.threads;
  if (threads > all) threads = all;
  if (threads < 1) return;
  int64_t started = 1;
  parallel(threads, [&](int64_t thread, int64_t of) {
    if (thread == 0) started = of;
    attend_to_part(memory, thread, share(all, thread, of));
  });
  merge_cut_groups(memory, started);
}

SC_EXPORT int64_t sc_attention_workspace(const SCAttentionArguments* a) {
  const int64_t tiles = a->threads * static_cast<int64_t>(sizeof(Scratch));
  const int64_t few = a->q_length <= SC_FEW_QUERIES ? FewMemory{*a}.bytes(a->threads) : 0;
  return tiles > few ? tiles : few;
}
