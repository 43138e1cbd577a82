#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/cuda_module.hpp"

namespace reap::test {

/// A backend that this machine has.
struct BackendCase {
  std::string name;
  std::unique_ptr<Backend> (*make)(int threads);
  friend void PrintTo(const BackendCase& self, std::ostream* out) { *out << self.name; }
};

/// Why there are no CUDA cases here; empty when there are. Asked once: opening the CUDA module takes time.
inline const std::string& why_no_cuda() {
  static const std::string why = find_cuda_devices().why_none;
  return why;
}

/// THE list of backends that the tests of operations run on: those of CUDA where a device answers.
inline std::vector<BackendCase> backend_cases() {
  std::vector<BackendCase> cases{
      {"cpu_fp32", [](int threads) { return make_cpu_backend(Compute::fp32, threads, CpuIsa::automatic); }},
      {"cpu_bf16", [](int threads) { return make_cpu_backend(Compute::bf16, threads, CpuIsa::automatic); }},
  };
  if (!why_no_cuda().empty()) return cases;
  cases.push_back({"cuda_fp32", [](int) { return make_cuda_backend(Compute::fp32, 0); }});
  cases.push_back({"cuda_bf16", [](int) { return make_cuda_backend(Compute::bf16, 0); }});
  return cases;
}

template <class T>
Buffer<T> upload(Backend& backend, const std::vector<T>& values) {
  Buffer<T> buffer(backend.memory(), static_cast<std::int64_t>(values.size()));
  backend.upload(buffer.data(), values.data(), values.size() * sizeof(T));
  backend.synchronize();  // tests hand arrays from one backend to another
  return buffer;
}

template <class T>
std::vector<T> download(Backend& backend, const Buffer<T>& buffer) {
  std::vector<T> values(static_cast<std::size_t>(buffer.size()));
  backend.download(values.data(), buffer.data(), values.size() * sizeof(T));
  backend.synchronize();
  return values;
}

/// Activations: fp32 values stored in the backend's activation type.
inline Buffer<std::byte> upload_act(Backend& backend, const std::vector<float>& values) {
  const bool is_bf16 = activation_dtype(backend.compute()) == DType::bf16;
  std::vector<std::byte> bytes(values.size() * (is_bf16 ? sizeof(bf16) : sizeof(float)));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const bf16 rounded = to_bf16(values[i]);
    if (is_bf16)
      std::memcpy(bytes.data() + i * sizeof rounded, &rounded, sizeof rounded);
    else
      std::memcpy(bytes.data() + i * sizeof(float), &values[i], sizeof(float));
  }
  return upload(backend, bytes);
}

inline std::vector<float> download_act(Backend& backend, const Buffer<std::byte>& buffer) {
  const std::vector<std::byte> bytes = download(backend, buffer);
  const bool is_bf16 = activation_dtype(backend.compute()) == DType::bf16;
  std::vector<float> values(bytes.size() / (is_bf16 ? sizeof(bf16) : sizeof(float)));
  for (std::size_t i = 0; i < values.size(); ++i) {
    bf16 rounded{};
    if (is_bf16) std::memcpy(&rounded, bytes.data() + i * sizeof rounded, sizeof rounded);
    if (is_bf16)
      values[i] = to_float(rounded);
    else
      std::memcpy(&values[i], bytes.data() + i * sizeof(float), sizeof(float));
  }
  return values;
}

/// Room for `count` activations.
inline Buffer<std::byte> act_buffer(Backend& backend, std::int64_t count) {
  const auto element = static_cast<std::int64_t>(size_of(activation_dtype(backend.compute())));
  return Buffer<std::byte>(backend.memory(), count * element);
}

/// `value` as the backend's activation type holds it.
inline float as_act(const Backend& backend, float value) {
  return backend.compute() == Compute::bf16 ? to_float(to_bf16(value)) : value;
}

/// A test that runs once per backend, on two threads:
///   using MyOp = reap::test::BackendTest;
///   REAP_TEST_ON_BACKENDS(MyOp);
class BackendTest : public testing::TestWithParam<BackendCase> {
 protected:
  BackendTest() : backend{GetParam().make(2)} {}
  std::unique_ptr<Backend> backend;
};

inline std::string backend_case_name(const testing::TestParamInfo<BackendCase>& info) { return info.param.name; }

}  // namespace reap::test

/// Where no device answers, a skipped test says so, once per suite.
#define REAP_TEST_ON_BACKENDS(suite)                                                                 \
  TEST(suite##OnCuda, HasADevice) {                                                                  \
    if (!reap::test::why_no_cuda().empty()) GTEST_SKIP() << "no GPU: " << reap::test::why_no_cuda(); \
  }                                                                                                  \
  INSTANTIATE_TEST_SUITE_P(Backends, suite, testing::ValuesIn(reap::test::backend_cases()),          \
                           reap::test::backend_case_name)
