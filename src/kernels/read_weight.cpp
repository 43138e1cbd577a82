#include <memory>

#include "kernels/backend.hpp"

namespace reap {

// Into memory that need not be cleared first, in one piece.
std::unique_ptr<Weight> Backend::read_weight(const WeightSource& source, const ReadBytes& read, Compute precision) {
  const std::size_t bytes = static_cast<std::size_t>(source.rows * source.cols) * size_of(source.dtype);
  const auto data = std::make_unique_for_overwrite<std::byte[]>(bytes);
  read(0, std::span(data.get(), bytes));
  WeightSource whole = source;
  whole.data = data.get();
  return pack(whole, precision);
}

}  // namespace reap
