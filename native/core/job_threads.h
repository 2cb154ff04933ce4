// The threads that jobs run on. Long jobs and queries have lanes of their own, so that fits in flight never keep a
// query waiting for a thread.
#pragma once
#include <functional>

namespace topknot {

/// Runs `work` on a job thread. Priority 0: a thread of its own (at most 64 at once, further ones wait); 1: one of
/// as many threads as the pool has. `work` must not throw.
/// Throws std::system_error, and does not run `work`, when the system has no thread for it.
void startJob(int priority, std::function<void()> work);

}  // namespace topknot
