// Gradients of sums, means and maxima, the CUDA side of cpu/kernels/reduce.cpp. Of a maximum the least place is found
// by an atomic minimum, whose order does not matter.
#pragma once
#include "cuda/kernels/reduce.cuh"

namespace topknot::cuda {

__global__ void __launch_bounds__(elementThreads) spreadGradient(ReduceGradientArgs a, float scale) {
  const int64_t i = threadOfGrid();
  if (i >= a.outer * a.length * a.inner) return;
  a.out[i] = a.gradient[i / (a.length * a.inner) * a.inner + i % a.inner] * scale;
}

using Place = unsigned long long;

__global__ void __launch_bounds__(elementThreads) startPlaces(Place* places, int64_t count) {
  const int64_t i = threadOfGrid();
  if (i < count) places[i] = ~Place{0};
}

__global__ void __launch_bounds__(elementThreads) findPlaces(ReduceGradientArgs a, const float* maxima, Place* places) {
  const int64_t i = threadOfGrid();
  if (i >= a.outer * a.length * a.inner) return;
  const int64_t result = i / (a.length * a.inner) * a.inner + i % a.inner;
  const float x = a.x[i], most = maxima[result];
  a.out[i] = 0;
  if (x == most || (x != x && most != most)) atomicMin(places + result, static_cast<Place>(i));
}

__global__ void __launch_bounds__(elementThreads) writePlaces(ReduceGradientArgs a, const Place* places) {
  const int64_t i = threadOfGrid();
  if (i < a.outer * a.inner) a.out[places[i]] = a.gradient[i];
}

/// The `reduceGradient` slot.
inline Status reduceGradient(const Exec& exec, const ReduceGradientArgs& a) {
  Queue queue(exec);
  const int64_t results = a.outer * a.inner, count = results * a.length;
  if (count == 0) return queue.status();
  if (a.kind != Reduction::max) {
    const float scale = a.kind == Reduction::mean ? 1 / static_cast<float>(a.length) : 1.0f;
    queue.launch("spreadGradient", spreadGradient, elementGrid(count), elementThreads, a, scale);
    return queue.status();
  }
  float* maxima = queue.workspace<float>(results);
  Place* places = queue.workspace<Place>(results);
  queueReduce<Maximum>(queue, {Reduction::max, a.x, a.outer, a.length, a.inner, maxima});
  queue.launch("startPlaces", startPlaces, elementGrid(results), elementThreads, places, results);
  queue.launch("findPlaces", findPlaces, elementGrid(count), elementThreads, a, maxima, places);
  queue.launch("writePlaces", writePlaces, elementGrid(results), elementThreads, a, places);
  return queue.status();
}

}  // namespace topknot::cuda
