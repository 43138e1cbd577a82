#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/check.hpp"
#include "kernels/cpu/products.hpp"
#include "kernels/round_up.hpp"

namespace reap::cpu {
namespace {

const PackedWeight& packed(const Weight* weight) { return *static_cast<const PackedWeight*>(weight); }

/// Stores `count` fp32 values as activations; `wide` says that those are held as f32, rounded like bf16.
void store_act(const Run& run, float* values, std::int64_t count, bool wide, std::byte* to) {
  if (run.compute == Compute::fp32) {
    std::memcpy(to, values, static_cast<std::size_t>(count) * sizeof(float));
  } else if (!wide) {
    run.vector.f32_to_bf16(values, count, reinterpret_cast<bf16*>(to));
  } else {
    run.vector.round_to_bf16(values, count, reinterpret_cast<float*>(to));
  }
}

}  // namespace

std::vector<Experts::Task> Experts::tasks_over(std::span<const std::int64_t> start, std::int64_t panels,
                                               std::int64_t tile, std::int64_t chunk_rows) {
  std::vector<Task> tasks;
  std::int64_t place = 0;
  for (std::size_t expert = 0; expert + 1 < start.size(); ++expert) {
    const std::int64_t slots = start[expert + 1] - start[expert];
    for (std::int64_t panel = 0; panel < panels; ++panel) {
      for (std::int64_t chunk = 0; chunk < slots; chunk += chunk_rows) {
        tasks.push_back({expert, panel, start[expert] + chunk, std::min(chunk_rows, slots - chunk), place + chunk});
      }
    }
    place += round_up(slots, tile);
  }
  return tasks;
}

void Experts::run(const Run& run, Workers& workers, const void* x, const std::int32_t* row,
                  std::span<const std::int64_t> start, std::span<const ExpertWeights> weights, void* f, float* norm,
                  float* max_abs, const SquareSums& inner) {
  REAP_CHECK(start.size() == weights.size() + 1, "{} experts, but {} group starts", weights.size(), start.size());
  if (weights.empty()) return;
  const std::int64_t slots = start.back();
  const PackedWeight& w1 = packed(weights[0].w1);
  const PackedWeight& w2 = packed(weights[0].w2);
  for (const ExpertWeights& expert : weights) {
    REAP_CHECK(expert.w1->rows() == w1.rows() && expert.w1->cols() == w1.cols() && expert.w3->rows() == w1.rows() &&
                   expert.w3->cols() == w1.cols() && expert.w2->rows() == w1.cols() && expert.w2->cols() == w1.rows(),
               "experts of different shapes");
    workers.prepare(0, packed(expert.w1));
    workers.prepare(1, packed(expert.w3));
    workers.prepare(0, packed(expert.w2));
  }
  const TileProduct& second = w2.product(0);
  const std::int64_t tile = second.tile();
  const std::vector<Task> first_tasks = tasks_over(start, w1.panels(), tile, kChunkRows);
  const std::vector<Task> second_tasks = tasks_over(start, w2.panels(), tile, kChunkRows);
  // An expert's slots in one piece: they add to the same sums.
  const std::vector<Task> square_tasks =
      inner.sums == nullptr ? std::vector<Task>() : tasks_over(start, w1.panels(), tile, slots);
  const std::int64_t places = slots + static_cast<std::int64_t>(weights.size()) * (tile - 1);
  reserve(inner_, places * second.cols() * static_cast<std::int64_t>(size_of(second.dtype())));
  reserve(panel_square_sum_, slots * w2.panels());
  reserve(panel_max_, slots * w2.panels());
  const RowSource source{x, activation_dtype(run.compute), w1.cols(), row};

  bool good = true;
#pragma omp parallel num_threads(run.threads) reduction(&& : good)
  {
    Worker& worker = workers.enter();
#pragma omp for schedule(dynamic)
    for (const Task& task : first_tasks) gate_and_up(run, worker, task, weights[task.expert], source);
#pragma omp for schedule(dynamic)
    for (const Task& task : square_tasks) good = add_squares(run, w1, w2, task, inner.sums) && good;
#pragma omp for schedule(dynamic)
    for (const Task& task : second_tasks) down(run, worker, task, weights[task.expert], static_cast<std::byte*>(f));
#pragma omp for schedule(static)
    for (std::int64_t slot = 0; slot < slots; ++slot) {
      const double* const sums = panel_square_sum_.data() + slot * w2.panels();
      const float* const maxima = panel_max_.data() + slot * w2.panels();
      double sum = 0;
      float max = 0;
      for (std::int64_t panel = 0; panel < w2.panels(); ++panel) {
        sum += sums[panel];
        max = max >= maxima[panel] || std::isnan(max) ? max : maxima[panel];
      }
      norm[slot] = static_cast<float>(std::sqrt(sum));
      max_abs[slot] = max;
    }
  }
  if (!good) *inner.bad = 1;
}

void Experts::gate_and_up(const Run& run, Worker& worker, const Task& task, const ExpertWeights& weights,
                          const RowSource& x) {
  const PackedWeight& w1 = packed(weights.w1);
  const TileProduct& product = w1.product(task.panel);
  const TileProduct& next = packed(weights.w2).product(0);
  const auto element = static_cast<std::int64_t>(size_of(next.dtype()));
  const TileProduct::Call gate = worker.call(0, w1, task.panel);
  const TileProduct::Call up = worker.call(1, packed(weights.w3), task.panel);
  for (std::int64_t done = 0; done < task.slots; done += product.tile()) {
    const std::int64_t count = std::min(product.tile(), task.slots - done);
    const void* const tile = worker.tile(run, x, task.first_slot + done, count, product);
    gate(tile);
    up(tile);
    // Padding becomes silu(0) * 0 = 0, in rows and columns: just what the next product wants there.
    const std::int64_t width = product.rows();
    run.vector.silu_mul(worker.out(0), worker.out(1), product.tile() * width, worker.out(0));
    for (std::int64_t row = 0; row < product.tile(); ++row) {
      const std::int64_t at = (task.first_place + done + row) * next.cols() + task.panel * PackedWeight::kPanelRows;
      store_act(run, worker.out(0) + row * width, width, next.dtype() == DType::f32, inner_.data() + at * element);
    }
  }
}

bool Experts::add_squares(const Run& run, const PackedWeight& w1, const PackedWeight& w2, const Task& task,
                          std::int64_t* sums) const {
  const TileProduct& next = w2.product(0);
  const std::int64_t channel = task.panel * PackedWeight::kPanelRows;
  std::int64_t* const low = sums + static_cast<std::int64_t>(task.expert) * kSquareDigits * w1.rows() + channel;
  bool good = true;
  for (std::int64_t place = task.first_place; place < task.first_place + task.slots; ++place) {
    good = run.vector.add_squares(inner_.data(), next.dtype() == DType::bf16, place * next.cols() + channel,
                                  w1.panel_rows(task.panel), low, low + w1.rows()) &&
           good;
  }
  return good;
}

void Experts::down(const Run& run, Worker& worker, const Task& task, const ExpertWeights& weights, std::byte* f) {
  const PackedWeight& w2 = packed(weights.w2);
  const TileProduct& product = w2.product(task.panel);
  const auto act = static_cast<std::int64_t>(size_of(activation_dtype(run.compute)));
  const std::int64_t width = w2.panel_rows(task.panel);
  const TileProduct::Call multiply = worker.call(0, w2, task.panel);
  for (std::int64_t done = 0; done < task.slots; done += product.tile()) {
    multiply(inner_.data() +
             (task.first_place + done) * product.cols() * static_cast<std::int64_t>(size_of(product.dtype())));
    for (std::int64_t row = 0; row < std::min(product.tile(), task.slots - done); ++row) {
      const std::int64_t slot = task.first_slot + done + row;
      float* const values = worker.out(0) + row * product.rows();
      const std::int64_t at = slot * w2.panels() + task.panel;
      panel_square_sum_.data()[at] = run.vector.square_sum_and_max(values, width, panel_max_.data() + at);
      store_act(run, values, width, false, f + (slot * w2.rows() + task.panel * PackedWeight::kPanelRows) * act);
    }
  }
}

}  // namespace reap::cpu
