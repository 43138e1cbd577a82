#include "kernels/cpu/tile_product.hpp"

#include <omp.h>

#include "kernels/check.hpp"
#include "kernels/round_up.hpp"

namespace reap::cpu {
namespace {

using dnnl::memory;

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

// Streams keep no state on a CPU, but the library does not promise that they may be shared.
dnnl::stream& stream() {
  thread_local dnnl::stream own(engine());
  return own;
}

// oneDNN chooses a kernel by the threads it may use, and the kernel decides the bits: it is always told one.
class OneThread {
 public:
  OneThread() : before_{omp_get_max_threads()} { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

memory::data_type onednn_type(DType dtype) {
  return dtype == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
}

}  // namespace

TileProduct::TileProduct(DType dtype, std::int64_t tile, std::int64_t cols, std::int64_t rows)
    : dtype_{dtype}, tile_{tile}, cols_{round_up(cols, kAlign)}, rows_{round_up(rows, kAlign)} {
  REAP_CHECK(dtype == DType::f32 || dtype == DType::bf16, "products are in f32 or bf16, not {}", name_of(dtype));
  REAP_CHECK(cols > 0 && rows > 0 && cols * rows < kPadding, "a panel of {} x {} weights", rows, cols);
  const OneThread one_thread;
  try {
    const memory::data_type type = onednn_type(dtype);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    attributes.set_fpmath_mode(dnnl::fpmath_mode::strict);  // whatever the environment says: f32 is f32
    x_ = memory::desc({tile_, cols_}, type, memory::format_tag::ab);
    out_ = memory::desc({tile_, rows_}, memory::data_type::f32, memory::format_tag::ab);
    const memory::desc any({cols_, rows_}, type, memory::format_tag::any);
    const dnnl::matmul::primitive_desc primitive({x_, any, out_}, attributes, engine());
    weights_ = primitive.weights_desc();
    scratch_ = primitive.scratchpad_desc();
    primitive_ = dnnl::matmul(primitive);
    learn_order(cols, rows);
    find_scale_run(cols);
  } catch (const dnnl::error& error) {
    fail(ExitCode::bug, "oneDNN made no {} product of [{}, {}] by [{}, {}]: {}", name_of(dtype), tile_, cols_, rows_,
         cols_, error.what());
  }
}

void TileProduct::learn_order(std::int64_t cols, std::int64_t rows) {
  const std::size_t count = static_cast<std::size_t>(cols_ * rows_);
  const memory::data_type type = onednn_type(dtype_);
  REAP_CHECK(weights_.get_size() == count * size_of(dtype_), "oneDNN packs {} weights in {} bytes", count,
             weights_.get_size());
  const memory plain({{cols_, rows_}, memory::data_type::f32, memory::format_tag::ba}, engine());
  const memory packed(weights_, engine());
  const memory read(memory::desc({static_cast<std::int64_t>(count)}, type, memory::format_tag::a), engine(),
                    packed.get_data_handle());
  const memory digits(memory::desc({static_cast<std::int64_t>(count)}, memory::data_type::f32, memory::format_tag::a),
                      engine());
  auto* const element = static_cast<float*>(plain.get_data_handle());
  const auto* const digit = static_cast<const float*>(digits.get_data_handle());
  // Numbers travel as digits to base 256, the largest that bf16 holds exactly. Elements count from 1: 0 is padding.
  std::vector<std::int32_t> number(count, 0);
  for (std::int64_t unit = 1; unit <= cols * rows; unit *= 256) {
    for (std::int64_t row = 0; row < rows_; ++row) {
      for (std::int64_t col = 0; col < cols_; ++col) {
        const std::int64_t n = row < rows && col < cols ? row * cols + col + 1 : 0;
        element[row * cols_ + col] = static_cast<float>(n / unit % 256);
      }
    }
    dnnl::reorder(plain, packed).execute(stream(), const_cast<memory&>(plain), const_cast<memory&>(packed));
    dnnl::reorder(read, digits).execute(stream(), const_cast<memory&>(read), const_cast<memory&>(digits));
    for (std::size_t i = 0; i < count; ++i)
      number[i] += static_cast<std::int32_t>(digit[i]) * static_cast<std::int32_t>(unit);
  }
  for (std::int32_t& n : number) n = n == 0 ? kPadding : n - 1;
  order_ = std::move(number);
}

void TileProduct::find_scale_run(std::int64_t cols) {
  // All of these divide a panel, and any order of blocks with 16 elements to a row has at least the last.
  for (const std::int64_t run : {1024, 256, 64, 16}) {
    bool uniform = true;
    for (std::size_t i = 0; i < order_.size() && uniform; i += static_cast<std::size_t>(run)) {
      std::int64_t square = -1;
      for (std::size_t place = i; place < i + static_cast<std::size_t>(run); ++place) {
        if (order_[place] == kPadding) continue;
        const std::int64_t here = (order_[place] / cols / kScaleBlock << 32) + order_[place] % cols / kScaleBlock;
        uniform = uniform && (square < 0 || square == here);
        square = here;
      }
    }
    if (!uniform) continue;
    scale_run_ = run;
    return;
  }
  fail(ExitCode::bug, "oneDNN packs [{}, {}] weights in an order that mixes scale blocks", rows_, cols_);
}

TileProduct::Call::Call(const TileProduct& product, const void* weights, float* out, void* scratch)
    : product_{&product},
      x_{product.x_, engine(), DNNL_MEMORY_NONE},
      weights_{product.weights_, engine(), const_cast<void*>(weights)},
      out_{product.out_, engine(), out},
      scratch_{product.scratch_, engine(), scratch} {}

void TileProduct::Call::operator()(const void* x) const {
  x_.set_data_handle(const_cast<void*>(x));
  const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, x_.get()},
                                       {DNNL_ARG_WEIGHTS, weights_.get()},
                                       {DNNL_ARG_DST, out_.get()},
                                       {DNNL_ARG_SCRATCHPAD, scratch_.get()}};
  // The C function: the C++ one builds a hash map per call, which shows at small widths.
  const dnnl_status_t status = dnnl_primitive_execute(product_->primitive_.get(), stream().get(), 4, arguments);
  REAP_CHECK(status == dnnl_success, "oneDNN's product failed with status {}", static_cast<int>(status));
}

std::shared_ptr<const TileProduct> TileProducts::get(DType dtype, std::int64_t cols, std::int64_t rows) {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<const TileProduct>& product = products_[{dtype, cols, rows}];
  if (!product) product = std::make_shared<const TileProduct>(dtype, tile_, cols, rows);
  return product;
}

}  // namespace reap::cpu
