// sparsecompile::region: memory for its values, and its linears one by one where one of them cannot be a
// stage now.
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

// How Python registers a region; codegen/cpp/region.py has the same fields. Sources are the inputs, then
// the values; -1 is none.
struct SCStagePlan {
  int64_t call;         // of the linear's kernel
  int64_t n;
  int64_t x, weight, bias;
  int64_t operands[2];
  int64_t dense[3];
  int64_t y;
  int64_t has_rows;     // whether values are computed before it
};
struct SCSourcePlan {
  int64_t dtype, width;
  int64_t kind;         // SourceKind
};

namespace {

enum SourceKind : int64_t {
  other,    // a layout or dense weight
  rows,     // [..., width]
  vector,   // [width]
  own,      // a value that every thread computes for itself
  shared,   // what a linear makes
};

struct RegionPlan {
  SCRunRegion run;
  SCRunRows run_rows;
  std::vector<SCStagePlan> stages;
  std::vector<SCSourcePlan> sources;
  int64_t inputs, like;
  int64_t outputs[2];

  bool returns(int64_t source) const { return source == outputs[0] || source == outputs[1]; }
};

Published<RegionPlan> regions;
// Values and the workspaces of all threads: linears that run one by one use the other.
thread_local Workspace region_memory;

int64_t whole_lines(int64_t bytes) { return (bytes + 127) / 128 * 128; }

// One call.
class RegionCall {
  const RegionPlan& plan;
  std::vector<OptionalTensor> tensors;  // by source: inputs, and results
  std::vector<SCStage> stages;
  std::vector<char*> sources;
  std::vector<int64_t> steps;
  SCRegion region{};
  at::DimVector shape;

  int64_t bytes_of(int64_t source) const {
    return region.m * plan.sources[source].width * dtypes_size(plan.sources[source].dtype);
  }
  static int64_t dtypes_size(int64_t dtype) { return dtype == 0 ? 4 : 2; }

  void check_input(int64_t i) {
    const SCSourcePlan& source = plan.sources[i];
    TORCH_CHECK(given(tensors[i]), "sparsecompile: tensor ", i, " of a region is missing");
    if (source.kind == other) return;
    Tensor& tensor = *tensors[i];
    const bool serves = source.kind == rows ? tensor.dim() > 0 && tensor.size(-1) == source.width
                                            : tensor.numel() == source.width;
    TORCH_CHECK(tensor.device().is_cpu() && tensor.scalar_type() == dtypes[source.dtype] && serves,
                "sparsecompile: tensor ", i, " of a region is ", tensor.scalar_type(), " ",
                tensor.sizes(), " on ", tensor.device(), ", it must be ", dtypes[source.dtype],
                " with ", source.width, " columns on the CPU");
    tensor = tensor.contiguous();
    TORCH_CHECK(source.kind == vector || tensor.numel() == region.m * source.width,
                "sparsecompile: tensor ", i, " of a region has shape ", tensor.sizes(),
                ", others have ", region.m, " rows");
    sources[i] = static_cast<char*>(const_cast<void*>(tensor.const_data_ptr()));
  }

  Tensor empty(int64_t source) {
    shape.back() = plan.sources[source].width;
    return at::empty(shape, at::dtype(dtypes[plan.sources[source].dtype]));
  }

  // The stage of a linear, if the kernel that serves it now can be one.
  bool add_stage(const SCStagePlan& stage) {
    const Tensor& weight = *tensors[stage.weight];
    if (is_dense(weight, stage.call)) return false;
    const SCLayoutHeader* header = layout_of(weight);
    const SCKernel& kernel = kernel_of(stage.call, header);
    const bool fits = header->n == stage.n && header->k == plan.sources[stage.x].width;
    int64_t range = 0;
    while (range + 1 < kernel.ranges && region.m > kernel.largest_m[range]) ++range;
    if (!fits || region.m > kernel.stage_m[range] || kernel.dense[range]) return false;
    SCLinearArguments arguments{};
    arguments.weight = header;
    arguments.bias = stage.bias < 0 ? nullptr : sources[stage.bias];
    stages.push_back({kernel.linear[range], arguments, stage.x, stage.operands[0],
                      stage.operands[1], stage.y});
    const int64_t bytes = kernel.workspace[range](header, region.m, region.threads);
    region.workspace_step = std::max(region.workspace_step, whole_lines(bytes));
    return true;
  }

  // Memory for what is not returned, and threads' own workspaces.
  void place() {
    int64_t common = 0, each = 0;
    for (size_t i = plan.inputs; i < plan.sources.size(); ++i) {
      const bool is_own = plan.sources[i].kind == own;
      if (is_own)
        each += whole_lines(bytes_of(i));
      else if (!plan.returns(i))
        common += whole_lines(bytes_of(i));
    }
    const int64_t step = each + region.workspace_step;
    char* memory = static_cast<char*>(region_memory.reserve(common + region.threads * step + 128));
    char* mine = memory + common;
    for (size_t i = plan.inputs; i < plan.sources.size(); ++i) {
      const bool is_own = plan.sources[i].kind == own;
      if (!is_own && plan.returns(i)) {
        sources[i] = static_cast<char*>(tensors[i]->mutable_data_ptr());
        continue;
      }
      char*& at = is_own ? mine : memory;
      sources[i] = at;
      at += whole_lines(bytes_of(i));
      if (is_own) steps[i] = step;
    }
    region.workspace = mine;
    region.workspace_step = step;
  }

  void run_at_once() {
    place();
    region.stages = stages.data();
    plan.run(&region);
    for (int64_t source : plan.outputs)
      if (source >= 0 && plan.sources[source].kind == own)
        std::memcpy(tensors[source]->mutable_data_ptr(), sources[source], bytes_of(source));
    region_memory.trim();
  }

  void run_one_by_one() {
    for (size_t i = plan.inputs; i < plan.sources.size(); ++i) {
      if (!tensors[i]) tensors[i] = empty(i);
      sources[i] = static_cast<char*>(tensors[i]->mutable_data_ptr());
    }
    const auto tensor = [&](int64_t source) {
      return source < 0 ? OptionalTensor() : tensors[source];
    };
    for (size_t i = 0; i < plan.stages.size(); ++i) {
      const SCStagePlan& stage = plan.stages[i];
      if (stage.has_rows) plan.run_rows(&region, static_cast<int64_t>(i));
      const Tensor y = linear_cpu(
          *tensors[stage.x], *tensors[stage.weight], tensor(stage.bias), tensor(stage.operands[0]),
          tensor(stage.operands[1]), tensor(stage.dense[0]), tensor(stage.dense[1]),
          tensor(stage.dense[2]), stage.n, stage.call);
      tensors[stage.y] = y;
      sources[stage.y] = static_cast<char*>(y.mutable_data_ptr());
    }
  }

 public:
  RegionCall(const RegionPlan& plan, const c10::IValue* given_tensors)
      : plan(plan), tensors(plan.sources.size()), sources(plan.sources.size()),
        steps(plan.sources.size()) {
    for (int64_t i = 0; i < plan.inputs; ++i) tensors[i] = given_tensors[i].toOptional<Tensor>();
    TORCH_CHECK(given(tensors[plan.like]), "sparsecompile: tensor ", plan.like,
                " of a region is missing");
    shape = tensors[plan.like]->sizes();
    region.m = 1;
    for (size_t i = 0; i + 1 < shape.size(); ++i) region.m *= shape[i];
    region.threads = at::get_num_threads();
    region.count = static_cast<int64_t>(plan.stages.size());
    region.sources = sources.data();
    region.steps = steps.data();
    for (int64_t i = 0; i < plan.inputs; ++i) check_input(i);
    for (int64_t source : plan.outputs)
      if (source >= 0) tensors[source] = empty(source);
  }

  void run() {
    if (region.m == 0) return;
    stages.reserve(plan.stages.size());
    for (const SCStagePlan& stage : plan.stages)
      if (!add_stage(stage)) return run_one_by_one();
    run_at_once();
  }
  Tensor result(int64_t i) const {
    return plan.outputs[i] < 0 ? at::empty({0}, tensors[plan.like]->options())
                               : *tensors[plan.outputs[i]];
  }
};

// Tensors, as many as the schema has, and the region's number.
void region_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const size_t arguments = op.schema().arguments().size();
  const c10::IValue* first = stack->data() + (stack->size() - arguments);
  RegionCall call(regions.at(first[arguments - 1].toInt()), first);
  call.run();
  const Tensor results[] = {call.result(0), call.result(1)};
  stack->resize(stack->size() - arguments);
  for (const Tensor& result : results) stack->emplace_back(result);
}

}  // namespace

SC_EXPORT void sc_register_region(int64_t key, SCRunRegion run, SCRunRows run_rows,
                                  const SCStagePlan* stages, int64_t count,
                                  const SCSourcePlan* sources, int64_t all, int64_t inputs,
                                  int64_t like, const int64_t* outputs) {
  regions.change(key, [&](RegionPlan& plan) {
    plan = {run, run_rows, {stages, stages + count}, {sources, sources + all}, inputs, like,
            {outputs[0], outputs[1]}};
  });
}

TORCH_LIBRARY_IMPL(sparsecompile, CPU, m) {
  m.impl("region", torch::CppFunction::makeFromBoxedFunction<&region_cpu>());
}
